import pytest

from mmjax.data.skipped import LISTED, Skipped, TooManyUnreadable


def test_the_ledger_names_each_record_once():
    ledger = Skipped()
    assert ledger.summary() == "no record skipped"
    for identity in ("a", "b", "a", "c", "d"):
        ledger.count(identity, "broken")
    ledger.count("e")
    assert ledger.reasons == dict.fromkeys("abcd", "broken")
    assert ledger.summary() == (
        "4 records skipped: a (broken); b (broken); c (broken) and 1 more; by cause: unreadable 4"
    )


def test_the_ledger_raises_past_its_share_and_not_before():
    ledger = Skipped(max_share=0.05)
    for number in range(95):
        ledger.count(str(number))
    for number in range(5):  # 5 of 100 are the share, not past it
        ledger.count(f"bad{number}", "broken")
    with pytest.raises(TooManyUnreadable, match=r"6 of the 101 .*5\.9%.*5\.0%.*bad0 \(broken\)"):
        ledger.count("bad5", "broken")


def test_the_share_does_not_count_before_enough_images_were_read():
    ledger = Skipped(max_share=0.0)
    for number in range(99):
        ledger.count(str(number), "broken")
    with pytest.raises(TooManyUnreadable, match="99 of the 100"):
        ledger.count("good")


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_is_a_share(share):
    with pytest.raises(ValueError, match="max_share"):
        Skipped(max_share=share)


def test_causes_are_counted_over_records_the_most_frequent_first():
    ledger = Skipped(max_share=1)
    for identity, cause in (("a", "x"), ("b", "y"), ("c", "y"), ("a", "x"), ("b", "y")):
        ledger.count(identity, "why", cause=cause)
    assert list(ledger.causes.items()) == [("y", 2), ("x", 1)]
    assert ledger.summary().endswith("; by cause: y 2, x 1")


def test_the_error_says_the_causes():
    ledger = Skipped(max_share=0, grace=1)
    with pytest.raises(TooManyUnreadable, match=r"\(empty text 1\)\. The first: a \(blank\)"):
        ledger.count("a", "blank", cause="empty text")


def test_its_memory_is_bounded():
    ledger = Skipped(max_share=1)
    for number in range(LISTED + 5):
        ledger.count(str(number), "why")
    assert len(ledger.reasons) == LISTED
    assert ledger.causes == {"unreadable": LISTED + 5}
