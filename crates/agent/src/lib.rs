//! The Stanchion agent.

pub mod backends;
pub mod board;
pub mod config;
pub mod events;
pub mod handle;
pub mod view;
