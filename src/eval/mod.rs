//! Evaluation: accuracy figures by the project's own recognition path, with reports and plots.
