//! Tests that run on every runtime.

/// Makes two tests of each case, `containerd::…` and `docker::…`. A case is a `fn(Backend) -> Result<()>` that makes
/// its node with `Node::builder().on(…)`.
#[macro_export]
macro_rules! on_each_runtime {
    ($($case:ident),* $(,)?) => {
        $crate::on_each_runtime! { @ containerd Containerd $($case)* }
        $crate::on_each_runtime! { @ docker Docker $($case)* }
    };
    (@ $module:ident $runtime:ident $($case:ident)*) => {
        mod $module {
            $(#[test]
            fn $case() -> ::anyhow::Result<()> {
                super::$case($crate::Backend::$runtime)
            })*
        }
    };
}
