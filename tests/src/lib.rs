//! The rules of the house (`tests/tidy`) and what a stranger sees of the built program (`tests/black_box`).
//!
//! Nothing is here for others: both are tests.
