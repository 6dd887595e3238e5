//! The `windtunnel` binary: parse, dispatch to a verb, end with its exit code.

/// The arguments as typed.
mod args;
/// The exit codes, in one enum.
mod exit;
/// Bars on a terminal, lines elsewhere, always stderr.
mod progress;
/// The result folder.
mod folder;
/// What verbs share: loading scenarios, printing, result folders.
mod common;
/// The file of a run's steps.
mod steps;
/// One file per verb.
mod command;

use args::{Cli, Command};
use clap::Parser;
use exit::{Exit, Stop};
use std::process::ExitCode;

fn main() -> ExitCode {
    // clap prints help and usage errors itself, the latter with exit code 2.
    let cli = Cli::parse();
    windtunnel_reference::devices::on_warning(|text| common::say(text));
    match dispatch(cli.command) {
        Ok(exit) => exit.into(),
        Err(error) => report(&error).into(),
    }
}

fn dispatch(command: Command) -> anyhow::Result<Exit> {
    match command {
        Command::Validate(args) => command::validate::validate(&args),
        Command::Bench(args) => command::bench::bench(&args),
        Command::Engine(command) => command::engine::engine(&command),
        Command::Calibrate(args) => command::calibrate::calibrate(&args),
        Command::Scenario(command) => command::scenario::scenario(command),
        Command::Run(args) => command::run::run(&args),
        Command::Live(args) => command::run::live(&args),
        Command::Report(args) => command::report::report(&args),
        Command::Export(args) => command::export::export(&args),
        Command::Compare(args) => command::compare::compare(&args),
        Command::Explain(args) => command::explain::explain(&args),
        Command::Completions { shell } => command::completions::completions(shell),
    }
}

/// Prints an error and chooses its exit code.
fn report(error: &anyhow::Error) -> Exit {
    if let Some(stop) = error.downcast_ref::<Stop>() {
        common::say(stop);
        return stop.exit;
    }
    common::say(format!("error: {error:#}"));
    Exit::Failure
}
