"""scripts/cost: what is deployed is priced, all of it. Run by `scripts/check-bicep --self-test`."""

import contextlib
import copy
import io
import json
import unittest

import costs


class Cost(unittest.TestCase):
    prices = json.loads((costs.ROOT / "bicep" / "prices.json").read_text())

    def table(self, environment: str, most: bool = False, prices: dict | None = None) -> costs.Table:
        prices = prices or self.prices
        return costs.priced(environment, prices, prices["usage"][environment], most)

    def test_every_environment_is_priced_and_stays_within_its_budget(self) -> None:
        for environment in ("dev", "staging", "prod"):
            with self.subTest(environment):
                table = self.table(environment)
                _, parameters = costs.resources(environment)
                self.assertLess(sum(table.sums().values()), parameters["budgetAmount"])
                with contextlib.redirect_stdout(io.StringIO()) as said:
                    self.assertEqual(0, costs.main([environment]))
                self.assertIn(self.prices["date"], said.getvalue())

    def test_a_standby_and_a_second_instance_cost_as_much_again(self) -> None:
        lines = {line.what: line for line in self.table("prod").lines}
        self.assertEqual(2, lines["PostgreSQL Standard_D4ds_v5"].count)
        self.assertEqual(2, lines["App Service P2v3"].count)
        self.assertEqual(6, {line.what: line for line in self.table("prod", most=True).lines}["App Service P2v3"].count)
        self.assertEqual(11.5, {line.what: line for line in self.table("staging").lines}["Redis Balanced_B0, 1 node"].cost)

    def test_what_has_no_price_is_an_error_and_not_free(self) -> None:
        for name in ("App Service P2v3", "PostgreSQL Standard_D4ds_v5", "Private endpoint"):
            with self.subTest(name):
                prices = copy.deepcopy(self.prices)
                del prices["month"][name]
                with self.assertRaisesRegex(costs.Unknown, name):
                    self.table("prod", prices=prices)

    def test_a_kind_of_resource_that_nobody_thought_of_is_an_error(self) -> None:
        known, costs.FREE = costs.FREE, costs.FREE - {"Consumption/budgets"}
        try:
            with self.assertRaisesRegex(costs.Unknown, "Microsoft.Consumption/budgets"):
                self.table("dev")
        finally:
            costs.FREE = known

    def test_every_part_stands_in_the_documents_table(self) -> None:
        told = {part for row in self.prices["documents"].values() if isinstance(row, dict) for part in row["ours"]}
        self.assertLessEqual(set(self.table("prod").sums()), told)


if __name__ == "__main__":
    unittest.main()
