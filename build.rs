//! Files added to `migrations/` must be compiled in; the macro that embeds them cannot tell cargo about new ones.

fn main() {
    println!("cargo::rerun-if-changed=migrations");
}
