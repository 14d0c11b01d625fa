//! What recognition means for the people in front of a camera. Pure: time is an argument.

pub mod agreement;
pub mod attempt;
pub mod event;
pub mod grant;
pub mod identity;
pub mod schedule;
pub mod stillness;
pub mod validity;
pub mod waiting;
