"""Summarises a year of orders: revenue by month, region and product.

Usage: python3 sales.py [FILE.csv]   (default: sales.csv beside this program)
"""

import csv
import sys
from collections import Counter
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path

BAR_WIDTH = 32


def parse_order(row):
    """Returns (date, region, product, revenue); a return has negative units and lowers the revenue."""
    day = date.fromisoformat(row["date"])
    price = Decimal(row["unit_price"]) * (100 - Decimal(row["discount_percent"])) / 100
    if not row["region"]:
        raise ValueError("no region")
    return day, row["region"], row["product"], int(row["units"]) * price


def read_orders(path):
    """Returns the orders that can be used, and the line numbers of those that cannot."""
    orders, rejected = [], []
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        for row in reader:
            try:
                orders.append(parse_order(row))
            except (ValueError, InvalidOperation):
                rejected.append(reader.line_num)
    return orders, rejected


def print_ranking(title, revenue, limit=None):
    total = sum(revenue.values())
    print(f"\n{title}")
    for name, amount in revenue.most_common(limit):
        print(f"  {name:<22}{amount:>12,.2f}  {amount / total:>6.1%}")


def print_months(revenue):
    print("\nRevenue by month")
    top = max(revenue.values())
    for month in sorted(revenue):
        bar = "#" * round(BAR_WIDTH * float(revenue[month] / top))
        print(f"  {month}  {revenue[month]:>12,.2f}  {bar}")


def main():
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("sales.csv")
    try:
        orders, rejected = read_orders(path)
    except OSError as error:
        sys.exit(f"sales.py: {error}")
    except KeyError as error:
        sys.exit(f"sales.py: {path} has no column {error}")
    if not orders:
        sys.exit(f"sales.py: {path} holds no usable order")

    by_month, by_region, by_product = Counter(), Counter(), Counter()
    for day, region, product, revenue in orders:
        by_month[day.strftime("%Y-%m")] += revenue
        by_region[region] += revenue
        by_product[product] += revenue

    total = sum(by_month.values())
    days = [day for day, *_ in orders]
    print(f"{len(orders)} orders from {min(days)} to {max(days)}")
    print(f"Revenue {total:,.2f}, {total / len(orders):,.2f} an order")
    print_months(by_month)
    print_ranking("Revenue by region", by_region)
    print_ranking("Best products", by_product, limit=5)
    if rejected:
        lines = ", ".join(map(str, rejected))
        print(f"\nLeft out, because a value is missing or no number: lines {lines}")


if __name__ == "__main__":
    main()
