//! `holdfast-bench-table`: the medians of the last run of each benchmark, and how many times the raw library's they are.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// One benchmark's outcome, in nanoseconds per element.
struct Outcome {
    name: String,
    median: f64,
    low: f64,
    high: f64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let program = std::env::current_exe()?;
    let folder = program.ancestors().nth(2).ok_or("this program does not lie in a target folder")?.join("criterion");
    let mut found = Vec::new();
    find(&folder, &mut found)?;
    let mut groups: BTreeMap<String, Vec<Outcome>> = BTreeMap::new();
    for folder in found {
        let (group, outcome) = read(&folder)?;
        groups.entry(group).or_default().push(outcome);
    }
    print(&mut groups);
    Ok(())
}

/// The folders named `new` that hold a result.
fn find(folder: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.ends_with("new") && path.join("benchmark.json").is_file() {
            found.push(path);
        } else if path.is_dir() {
            find(&path, found)?;
        }
    }
    Ok(())
}

fn read(folder: &Path) -> Result<(String, Outcome), Box<dyn Error>> {
    let parse = |name: &str| Ok::<Value, Box<dyn Error>>(serde_json::from_slice(&fs::read(folder.join(name))?)?);
    let (about, estimates) = (parse("benchmark.json")?, parse("estimates.json")?);
    let text = |name: &str| about[name].as_str().unwrap_or_default().to_owned();
    let elements = about["throughput"]["Elements"].as_f64().unwrap_or(1.0);
    let median = &estimates["median"];
    let number = |value: &Value| value.as_f64().map(|ns| ns / elements).ok_or("an estimate is no number");
    let interval = &median["confidence_interval"];
    let outcome = Outcome {
        name: text("function_id"),
        median: number(&median["point_estimate"])?,
        low: number(&interval["lower_bound"])?,
        high: number(&interval["upper_bound"])?,
    };
    Ok((text("group_id"), outcome))
}

fn print(groups: &mut BTreeMap<String, Vec<Outcome>>) {
    println!("| group | what | median | 95 % interval | times raw |");
    println!("| --- | --- | ---: | ---: | ---: |");
    for (group, outcomes) in groups {
        let raw = outcomes.iter().find(|outcome| outcome.name.starts_with("raw")).map(|outcome| outcome.median);
        outcomes.sort_by_key(|outcome| (!outcome.name.starts_with("raw"), outcome.name.clone()));
        for Outcome { name, median, low, high } in outcomes {
            let ratio = raw.map_or("-".to_owned(), |raw| format!("{:.2}", *median / raw));
            println!("| {group} | {name} | {} | {} .. {} | {ratio} |", time(*median), time(*low), time(*high));
        }
    }
}

fn time(ns: f64) -> String {
    match ns {
        ns if ns < 1e3 => format!("{ns:.0} ns"),
        ns if ns < 1e6 => format!("{:.2} us", ns / 1e3),
        ns => format!("{:.2} ms", ns / 1e6),
    }
}
