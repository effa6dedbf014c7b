//! Two backends in one library: FakeRuntime, which follows every rule, and Unruly, which breaks them.
#![forbid(unsafe_code)]

mod unruly;

stanchion_sdk::export_backend!("fake", stanchion_sdk::runtime::testing::FakeRuntime);
stanchion_sdk::export_backend!("unruly", unruly::Unruly);
