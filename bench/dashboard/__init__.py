"""The Grafana dashboard with numbers of a real fleet, drawn without Grafana."""
