from tests.benchmarks.memorised import answers


def test_a_model_that_knows_the_adversarys_examples_better_says_no_less_than_even_counts():
    rows = [dict(answers("one gradient", 300, k, even=True, memorised=True)) for k in range(3)]
    assert all(row["misfit"] > 10 for row in rows)
    assert sum(row["eb-gls"] - row["uniform"] for row in rows) > -15
    assert sum(row["eb-gls"] - row["search"] for row in rows) > 60
