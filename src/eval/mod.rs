//! Evaluation: accuracy figures by the project's own recognition path, with reports and plots.
//!
//! Words follow ISO/IEC 19795: FMR and FNMR for comparisons (1:1), FPIR and FNIR for
//! identification (1:N); and ISO/IEC 30107-3: APCER and BPCER for presentation attack detection.
//! Every rate is printed with the number of trials behind it.

pub mod calibration;
pub mod dataset;
pub mod distribution;
pub mod extraction;
pub mod identification;
pub mod identity;
pub mod liveness;
pub mod pairs;
pub mod plots;
pub mod random;
pub mod rate;
pub mod recognition;
