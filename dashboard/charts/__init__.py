"""The only room that knows Altair and ECharts: charts, levels, numbers and words. It knows no page and reads no run."""
