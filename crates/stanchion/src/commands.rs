//! The commands, one module each.

pub mod backend;
pub mod backends;
pub mod describe;
pub mod doctor;
pub mod exec;
pub mod get;
pub mod images;
pub mod logs;
pub mod restart;
pub mod validate;
