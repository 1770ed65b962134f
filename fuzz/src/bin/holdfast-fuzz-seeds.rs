//! Writes what a target starts from into a folder: its seeds, and what the repository keeps for it.

use std::path::PathBuf;
use std::{env, fs};

use holdfast_fuzz::{corpus, target};

fn main() {
    let mut arguments = env::args().skip(1);
    let (Some(name), Some(folder)) = (arguments.next(), arguments.next().map(PathBuf::from)) else {
        panic!("usage: holdfast-fuzz-seeds TARGET FOLDER");
    };
    let target = target(&name).unwrap_or_else(|| panic!("{name} is no target"));
    let seeds = (target.seeds)().into_iter().enumerate().map(|(at, bytes)| (format!("seed-{at:03}"), bytes));
    for (name, bytes) in seeds.chain(corpus::kept(target)) {
        fs::write(folder.join(name), bytes).expect("the folder can be written to");
    }
}
