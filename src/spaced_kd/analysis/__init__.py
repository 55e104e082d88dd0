"""From rows to statistics, claims, tables and figures. Never imports torch."""
