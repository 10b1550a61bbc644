"""Dashboards of sales in Metabase: the questions of each, as SQL on views and tables of the schema `analytics`."""

from __future__ import annotations

from mini_platform.operations.metabase import Question

DASHBOARDS: dict[str, tuple[Question, ...]] = {
    "Sales: trends": (
        Question(
            "Revenue and profit by month",
            "line",
            "SELECT month, revenue, profit FROM analytics.monthly_revenue ORDER BY month",
            ("month",),
            ("revenue", "profit"),
        ),
        Question(
            "Orders and customers by month",
            "bar",
            "SELECT month, orders, customers FROM analytics.monthly_revenue ORDER BY month",
            ("month",),
            ("orders", "customers"),
        ),
    ),
    "Sales: products by category": (
        Question(
            "Revenue and profit by category",
            "bar",
            "SELECT category, revenue, profit FROM analytics.revenue_by_category ORDER BY revenue DESC",
            ("category",),
            ("revenue", "profit"),
        ),
        Question(
            "Revenue by category and quarter",
            "area",
            "SELECT date_trunc('quarter', order_date)::date AS quarter, product_category AS category, sum(revenue) AS revenue "
            "FROM analytics.fact_sales JOIN analytics.dim_product USING (product_id) GROUP BY 1, 2 ORDER BY 1, 2",
            ("quarter", "category"),
            ("revenue",),
        ),
    ),
    "Sales: purchase patterns": (
        Question(
            "Customers by number of orders",
            "bar",
            "SELECT orders, count(*) AS customers FROM analytics.customer_purchases GROUP BY orders ORDER BY orders",
            ("orders",),
            ("customers",),
        ),
        Question(
            "Days between orders",
            "bar",
            "SELECT floor(days_between_orders / 30) * 30 AS days, count(*) AS customers FROM analytics.customer_purchases "
            "WHERE days_between_orders IS NOT NULL GROUP BY 1 ORDER BY 1",
            ("days",),
            ("customers",),
        ),
        Question(
            "Revenue by day of the week",
            "bar",
            "SELECT to_char(order_date, 'ID Dy') AS weekday, sum(revenue) AS revenue FROM analytics.fact_sales "
            "GROUP BY 1 ORDER BY 1",
            ("weekday",),
            ("revenue",),
        ),
    ),
    "Sales: top products": (
        Question(
            "Top 10 products by revenue",
            "row",
            "SELECT title, revenue FROM analytics.top_products ORDER BY revenue DESC, title LIMIT 10",
            ("title",),
            ("revenue",),
        ),
        Question(
            "Top 50 products by revenue, with pieces and profit",
            "table",
            "SELECT rank, title, category, pieces, revenue, profit FROM analytics.top_products "
            "ORDER BY revenue DESC, title LIMIT 50",
        ),
    ),
}
"""Questions by the name of their dashboard."""
