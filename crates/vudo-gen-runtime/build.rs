//! Gives the module a small stack: nothing in it recurses, and every page counts at start-up.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = std::env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    if target == "wasm32" {
        println!("cargo::rustc-link-arg-cdylib=-zstack-size=65536");
        // Addresses of statics are shorter below 8192. The frames that xtask fixes lie before them.
        println!("cargo::rustc-link-arg-cdylib=--no-stack-first");
        println!("cargo::rustc-link-arg-cdylib=--global-base=4096");
        // The compiler drops what a module does not refer to, segment by segment.
        println!("cargo::rustc-link-arg-cdylib=--no-merge-data-segments");
    }
}
