//! Gives the module a small stack: nothing in it recurses, and every page counts at start-up.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = std::env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    if target == "wasm32" {
        println!("cargo::rustc-link-arg-cdylib=-zstack-size=65536");
        // The compiler drops what a module does not refer to, segment by segment.
        println!("cargo::rustc-link-arg-cdylib=--no-merge-data-segments");
    }
}
