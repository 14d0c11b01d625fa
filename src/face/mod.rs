//! The mathematics of faces: pictures, detections, alignment, templates, scores and image rules.
//!
//! Everything below is pure: values in, values out, no files, clocks, threads or logs. Tensors
//! come from the inference port as plain slices, so each decoder is tested against tensors that
//! were recorded from the real models.

pub mod alignment;
pub mod comparison;
pub mod crop;
pub mod cues;
pub mod detection;
pub mod eyes;
pub mod geometry;
pub mod image;
pub mod landmarks;
pub mod liveness;
pub mod mesh;
pub mod planes;
pub mod pose;
pub mod quality;
pub mod state;
pub mod tail;
pub mod template;
pub mod track;
pub mod yunet;
