//! Requests and answers of [`crate::Core`]: plain data, no behaviour beyond their own syntax.

mod admin;
mod alert;
mod audit;
mod caller;
mod cluster;
mod detection;
mod escalation;
mod incident;
mod incident_act;
mod notice;
mod pipeline;
mod record;
mod search;
mod ticket;

pub use admin::*;
pub use alert::*;
pub use audit::*;
pub use caller::*;
pub use cluster::*;
pub use detection::*;
pub use escalation::*;
pub use incident::*;
pub use incident_act::*;
pub use notice::*;
pub use pipeline::*;
pub use record::*;
pub use search::*;
pub use ticket::*;
