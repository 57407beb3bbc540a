//! The program's command table. The program has no library, so its files are taken by their paths.

#![allow(dead_code, unreachable_pub, unused_imports)] // a route needs a part of them, and their tests do not run here

pub mod cached;
#[path = "../../../crates/proxy/src/commands/table/mod.rs"]
pub mod table;
