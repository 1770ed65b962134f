//! docs/cli.md: its second half is made of the commands themselves, so that it can't say anything else.
//!
//! `UPDATE_GOLDEN=1 cargo test --bin holdfast reference` writes it anew.

use std::path::Path;

use clap::{Arg, Command, CommandFactory};

use crate::connect::SHARED;

/// Above this line the page is written by hand.
const MARK: &str = "<!-- made from the program; see cli/src/reference.rs -->\n";
fn page() -> String {
    let mut root = crate::Cli::command();
    root.build();
    let mut text = format!("{MARK}\n## Connection and output\n\nThe commands that ask a node take these.\n\n");
    let status = root.find_subcommand("status").expect("it has this command");
    status.get_arguments().filter(|arg| is_shared(arg)).for_each(|arg| text.push_str(&argument(arg)));
    text.push_str("\n## Commands\n");
    for command in root.get_subcommands() {
        into(&mut text, command, "holdfast");
    }
    text
}

fn into(text: &mut String, command: &Command, above: &str) {
    if command.is_hide_set() || command.get_name() == "help" {
        return;
    }
    let name = format!("{above} {}", command.get_name());
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    if command.has_subcommands() {
        text.push_str(&format!("\n### {name}\n\n{about}.\n"));
        command.get_subcommands().for_each(|below| into(text, below, &name));
        return;
    }
    let level = if above == "holdfast" { "###" } else { "####" };
    text.push_str(&format!("\n{level} {name}{}\n\n{about}.\n", positionals(command)));
    let is_own = |arg: &&Arg| !is_shared(arg) && !arg.is_hide_set() && arg.get_id() != "help";
    let own: Vec<&Arg> = command.get_arguments().filter(is_own).collect();
    if !own.is_empty() {
        text.push('\n');
        own.iter().for_each(|arg| text.push_str(&argument(arg)));
    }
}

fn is_shared(arg: &Arg) -> bool {
    arg.get_help_heading() == Some(SHARED)
}

fn positionals(command: &Command) -> String {
    let shown = command.get_positionals().filter(|arg| !arg.is_hide_set());
    shown
        .map(|arg| if arg.is_required_set() { format!(" {}", value(arg)) } else { format!(" [{}]", value(arg)) })
        .collect()
}

fn value(arg: &Arg) -> String {
    let names = arg.get_value_names().unwrap_or_default();
    names.iter().map(|name| name.to_string()).collect::<Vec<_>>().join(" ")
}

fn argument(arg: &Arg) -> String {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let takes = arg.get_action().takes_values();
    let short = arg.get_short().map(|short| format!("-{short}, ")).unwrap_or_default();
    let name = match (arg.get_long(), takes) {
        (Some(long), true) => format!("{short}--{long} {}", value(arg)),
        (Some(long), false) => format!("{short}--{long}"),
        (None, _) => value(arg),
    };
    let choices: Vec<String> =
        arg.get_possible_values().iter().map(|choice| format!("`{}`", choice.get_name())).collect();
    let choices = match (takes && !choices.is_empty(), value(arg) == "BOOL") {
        (true, false) => format!(" ({})", choices.join(", ")),
        _ => String::new(),
    };
    let required = if arg.is_required_set() && !arg.is_positional() { " **Needed.**" } else { "" };
    let end = if help.ends_with('.') { "" } else { "." };
    format!("- `{name}`: {help}{end}{choices}{required}\n")
}

#[test]
fn the_page_about_the_command_line_is_what_the_program_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
    let written = std::fs::read_to_string(&path).unwrap();
    let (by_hand, _) = written.split_once(MARK).expect("the page has its mark");
    let page = format!("{by_hand}{}", page());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert_eq!(written, page, "docs/cli.md: UPDATE_GOLDEN=1 cargo test --bin holdfast reference");
}

/// Whatever is told once has to be the same for all commands.
#[test]
fn every_command_that_asks_a_node_takes_the_same_of_where_and_who() {
    fn leaves(command: &Command, found: &mut Vec<Vec<String>>) {
        let shared: Vec<String> = command.get_arguments().filter(|arg| is_shared(arg)).map(argument).collect();
        if !shared.is_empty() {
            found.push(shared);
        }
        command.get_subcommands().for_each(|below| leaves(below, found));
    }
    let mut root = crate::Cli::command();
    root.build();
    let mut found = Vec::new();
    leaves(&root, &mut found);
    assert!(found.len() > 50, "{}", found.len());
    assert!(found.windows(2).all(|pair| pair[0] == pair[1]));
}
