"""What may be written as an expression, and what the writer hears otherwise."""

import pytest

from drivetrain.api.errors import ExpressionError
from drivetrain.api.expression import (
    Binary,
    Call,
    Case,
    Compare,
    Logical,
    Name,
    Node,
    Not,
    Number,
    Text,
    Unary,
    class_terms,
    parse,
)

A, B, C = Name("a"), Name("b"), Name("c")


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        pytest.param("a - b - c", Binary("-", Binary("-", A, B), C), id="subtraction-groups-from-the-left"),
        pytest.param("a / b * c", Binary("*", Binary("/", A, B), C), id="products-group-from-the-left"),
        pytest.param("a + b * c", Binary("+", A, Binary("*", B, C)), id="product-binds-before-sum"),
        pytest.param("(a + b) * c", Binary("*", Binary("+", A, B), C), id="brackets-bind-first"),
        pytest.param("-a * b", Binary("*", Unary(A), B), id="sign-binds-before-product"),
        pytest.param("a - -b", Binary("-", A, Unary(B)), id="a-sign-may-follow-an-operator"),
        pytest.param("a + 1 < b", Compare("<", Binary("+", A, Number(1)), B), id="sum-binds-before-comparison"),
        pytest.param("a != b", Compare("<>", A, B), id="bang-equals-is-another-spelling"),
        pytest.param(
            "a > 0 OR b > 0 AND c > 0",
            Logical(
                "OR",
                Compare(">", A, Number(0)),
                Logical("AND", Compare(">", B, Number(0)), Compare(">", C, Number(0))),
            ),
            id="and-binds-before-or",
        ),
        pytest.param(
            "not a > 0 and b > 0",
            Logical("AND", Not(Compare(">", A, Number(0))), Compare(">", B, Number(0))),
            id="not-binds-after-comparison-and-before-and",
        ),
        pytest.param("'CH' = a", Compare("=", A, Text("CH")), id="text-moves-to-the-right"),
        pytest.param("a = 'it''s'", Compare("=", A, Text("it's")), id="a-doubled-quote-is-one"),
        pytest.param(
            "case when a > 1 then b when a > 0 then c else 2.5e-1 end",
            Case(((Compare(">", A, Number(1)), B), (Compare(">", A, Number(0)), C)), Number(0.25)),
            id="keywords-in-any-case",
        ),
        pytest.param("Greatest(a, .5, b)", Call("greatest", (A, Number(0.5), B)), id="functions-in-any-case"),
        pytest.param("exp", Name("exp"), id="a-function-name-without-a-bracket-is-a-column"),
    ],
)
def test_an_expression_parses_to_the_tree_that_sql_gives_it(text: str, tree: Node) -> None:
    assert parse(text).tree == tree


def test_an_expression_knows_its_text_and_the_names_it_reads() -> None:
    expression = parse("purchase * (price - discount - 1.1)")
    assert expression.text == "purchase * (price - discount - 1.1)"
    assert expression.names == {"purchase", "price", "discount"}


def test_the_classes_with_which_a_target_is_compared_are_listed_once_and_sorted() -> None:
    expression = parse("(brand = 'MM') * 2 + (brand = 'CH') * 3 - (brand <> 'CH') + (store = 'x')")
    assert class_terms(expression, "brand") == ("CH", "MM")


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        pytest.param("", 0, "empty", id="nothing"),
        pytest.param("sum(a)", 0, "aggregate", id="an-aggregate"),
        pytest.param("1 + max(a)", 4, "aggregate Use greatest", id="max-suggests-greatest"),
        pytest.param("count(*)", 0, "aggregate", id="count-star"),
        pytest.param("AVG(a)", 0, "aggregate", id="an-aggregate-in-capitals"),
        pytest.param("rank()", 0, "window one row", id="a-window-function"),
        pytest.param("abs(a) over (partition by b)", 7, "window one row", id="over"),
        pytest.param("(select a)", 1, "subquery", id="a-subquery"),
        pytest.param("lnn(a)", 0, "no function lnn mean ln", id="a-misspelled-function"),
        pytest.param("sqrt(a)", 0, "no function sqrt exp(0.5 * ln(x))", id="a-function-that-can-be-written-otherwise"),
        pytest.param("launch(a)", 0, "no function launch Known least", id="an-unknown-function"),
        pytest.param("a b", 2, "'b' operator or the end", id="trailing-input"),
        pytest.param("a + b)", 5, "closes nothing", id="a-bracket-too-many"),
        pytest.param("(a + b", 6, "ends ')'", id="a-bracket-too-few"),
        pytest.param("a +", 3, "ends a name", id="a-missing-operand"),
        pytest.param("a; drop", 1, "';' semicolon", id="a-second-statement"),
        pytest.param('"a" + 1', 0, "single quotes", id="a-quoted-name"),
        pytest.param("a = 'CH", 4, "Close", id="an-open-text"),
        pytest.param("a--1", 1, "Comments", id="a-comment"),
        pytest.param("t.a", 1, "no prefix", id="a-prefix"),
        pytest.param("a % 2", 2, "modulo", id="modulo"),
        pytest.param("+a", 0, "leading +", id="a-leading-plus"),
        pytest.param("a < b < c", 6, "chained AND", id="a-chained-comparison"),
        pytest.param("'CH'", 0, "alone", id="text-alone"),
        pytest.param("a + 'CH'", 4, "compared", id="text-in-arithmetic"),
        pytest.param("coalesce(a, 'CH')", 12, "compared", id="text-in-a-function"),
        pytest.param("case when a > 0 then 'CH' else 1 end", 21, "compared", id="text-as-a-result"),
        pytest.param("a + 1 = 'CH'", 8, "compared", id="text-beside-a-sum"),
        pytest.param("'a' = 'b'", 0, "alone", id="text-beside-text"),
        pytest.param("a < 'CH'", 2, "ordered", id="text-in-order"),
        pytest.param("a = null", 4, "NULL coalesce", id="null"),
        pytest.param("a is null", 2, "IS coalesce", id="is-null"),
        pytest.param("a = true", 4, "TRUE", id="true"),
        pytest.param("a in (1, 2)", 2, "IN OR", id="in"),
        pytest.param("a between 1 and 2", 2, "BETWEEN >=", id="between"),
        pytest.param("case a when 1 then 2 else 3 end", 5, "WHEN", id="case-with-an-operand"),
        pytest.param("case when a > 0 then 1 end", 23, "ELSE", id="case-without-else"),
        pytest.param("least(a)", 0, "2 to 16 1", id="too-few-arguments"),
        pytest.param("abs(a, b)", 0, "1 2", id="too-many-arguments"),
        pytest.param("1e999", 0, "too large", id="an-infinite-number"),
        pytest.param("a" * 1025, 1024, "1025 1024", id="too-long"),
        pytest.param("(" * 33 + "a" + ")" * 33, 32, "nested 32", id="nested-too-deep"),
        pytest.param("a" + "+a" * 129, 257, "128 operations", id="too-many-operations"),
    ],
)
def test_what_is_outside_the_allow_list_is_refused_with_its_position(text: str, position: int, words: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    assert caught.value.position == position
    for word in words.split():
        assert word in str(caught.value)


def test_an_expression_at_the_limits_is_accepted() -> None:
    assert parse("(" * 32 + "a" + ")" * 32).tree == A
    assert parse("a" + "+a" * 128).names == {"a"}
    assert parse("a" * 1024).names == {"a" * 1024}
