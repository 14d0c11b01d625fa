//! Counters, gauges and histograms that `/metrics` shows, and where the logs go.
