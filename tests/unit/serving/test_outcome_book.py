"""Numbers of reported outcomes, within a bounded memory."""

from drivetrain.serving.outcomes import OutcomeBook


def test_equal_content_keeps_its_number_and_other_content_gets_the_next() -> None:
    book = OutcomeBook()
    assert book.number([("a", "1"), ("b", "1"), ("a", "2"), ("a", "1"), ("a", "2")]) == [0, 0, 1, 0, 1]


def test_a_book_rebuilt_from_the_log_goes_on_with_its_numbers_whatever_the_order_of_reports() -> None:
    book = OutcomeBook()
    book.remember("a", "2", 1)
    book.remember("a", "1", 0)
    assert book.number([("a", "1"), ("a", "2"), ("a", "3")]) == [0, 1, 2]


def test_the_decisions_reported_longest_ago_are_forgotten_first_and_start_anew() -> None:
    book = OutcomeBook(limit=3)
    book.number([(name, "1") for name in "abcd"])
    assert len(book) == 3
    assert book.number([("d", "2"), ("b", "2"), ("a", "2")]) == [1, 1, 0]
    assert len(book) == 3
