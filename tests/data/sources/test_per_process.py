import gc
import os
import pickle
import subprocess
import sys
import threading
import weakref
from typing import ClassVar

import pytest

from mmjax.data.sources.per_process import PerProcess


class Thing:
    """Something whose end can be seen."""

    made: ClassVar[list] = []

    def __init__(self, key):
        self.key, self.process = key, os.getpid()
        Thing.made.append(key)

    def size(self):
        return self.key


@pytest.fixture(autouse=True)
def nothing_made():
    Thing.made.clear()


def test_each_is_made_once_until_it_falls_out():
    things = PerProcess(Thing, limit=2)
    assert things[1] is things[1]
    things[2], things[1], things[3]  # 2 is the one that was not used for the longest time
    assert Thing.made == [1, 2, 3]
    things[1], things[2]
    assert Thing.made == [1, 2, 3, 2]


def test_sizes_count_and_the_newest_is_kept_whatever_its_size():
    things = PerProcess(Thing, limit=10, size=Thing.size)
    things[4], things[6]
    assert things[4] in (things[4], things[6])
    things[100]
    assert things[100] is things[100]
    things[4]
    assert Thing.made == [4, 6, 100, 4]


def test_what_falls_out_lives_on_for_its_user():
    things = PerProcess(Thing, limit=1)
    used = things[1]
    gone = weakref.ref(things[2])
    things[3]
    gc.collect()
    assert gone() is None
    assert used.key == 1


def test_many_threads_make_one():
    barrier, slow = threading.Barrier(8), threading.Event()

    def make(key):
        slow.wait(0.05)
        return Thing(key)

    things = PerProcess(make, limit=4)

    def read():
        barrier.wait()
        things["a"]

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Thing.made == ["a"]


def test_what_could_not_be_made_is_tried_again():
    tries = []

    def make(key):
        tries.append(key)
        if len(tries) == 1:
            raise OSError("not yet")
        return key

    things = PerProcess(make, limit=1)
    with pytest.raises(OSError, match="not yet"):
        things["a"]
    assert things["a"] == "a"


def test_nothing_goes_through_a_pickle():
    things = PerProcess(Thing, limit=2)
    first = things[1]
    copy = pickle.loads(pickle.dumps(things))
    assert copy[1] is not first
    assert things[1] is first


FORK = """
import os, warnings
from mmjax.data.sources.per_process import PerProcess

warnings.simplefilter("ignore")
things = PerProcess(lambda key: (key, os.getpid()), limit=2)
parent = things[1]
with things._kept.lock:
    child = os.fork()
    if child == 0:
        os._exit(0 if things[1] == (1, os.getpid()) != parent else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert things[1] is parent
"""


def test_nothing_goes_through_a_fork_not_even_a_lock_that_is_held():
    """In a process of its own: this one has JAX's threads, which a fork may not survive."""
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
