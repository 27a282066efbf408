//! The command line.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use satsuma::config::{Config, Flags};
use satsuma::operate::{OperateCommand, OperateError, operate, revoke_tokens};
use satsuma::server::{TokenOptions, check, check_engine, healthcheck, mint_token, run};
use satsuma::telemetry::{self, complain};

/// A self-hosted meeting server that takes the place of Orange Meets' own server.
#[derive(Parser)]
#[command(version, after_help = "Every setting is explained in config/satsuma.toml.")]
struct Cli {
    #[command(subcommand)]
    command: Option<CliCommand>,
    /// The configuration file; by default satsuma.toml or config/satsuma.toml, if there is one.
    #[arg(long, global = true, value_name = "FILE", env = "SATSUMA_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Subcommand)]
enum CliCommand {
    /// Run the server; this is what happens without a command.
    Serve,
    /// Report every fault in the configuration.
    CheckConfig,
    /// Ask the running server whether it is alive.
    Healthcheck,
    #[command(flatten)]
    Operate(OperateCommand),
    /// Make an access token, with the first key of the configuration, or revoke tokens.
    Token(TokenOptions),
    Load(satsuma_load::Options),
}

fn main() -> ExitCode {
    let done = match Cli::parse() {
        Cli { command: Some(CliCommand::Load(load)), .. } => satsuma_load::main(&load, |line| complain(line)),
        cli => obey(cli),
    };
    telemetry::exit_code(done, |error| error.downcast_ref().map_or(1, OperateError::exit_code))
}

#[tokio::main]
async fn obey(Cli { command, config, flags }: Cli) -> Result<(), Box<dyn std::error::Error>> {
    let loaded = Config::load(config.as_deref(), std::env::vars_os(), &flags)?;
    let warn = |warning: &String| complain(format_args!("satsuma: {warning}"));
    loaded.warnings.iter().for_each(warn);
    match command {
        Some(CliCommand::CheckConfig) => {
            check(&loaded.config)?.iter().for_each(warn);
            check_engine(&loaded.config).await?;
            writeln!(std::io::stdout(), "configuration OK")?;
        }
        Some(CliCommand::Healthcheck) => healthcheck(&loaded.config).await?,
        Some(CliCommand::Token(options)) => {
            let text = match &options.command {
                Some(command) => revoke_tokens(&loaded.config, command).await?,
                None => mint_token(&loaded.config, &options)?,
            };
            std::io::stdout().write_all(text.as_bytes())?;
        }
        Some(CliCommand::Operate(command)) => {
            operate(&loaded.config, &command, &mut std::io::stdout()).await?;
        }
        _ => {
            telemetry::init(&loaded.config.log)?;
            run(loaded.config, loaded.origins).await?;
        }
    }
    Ok(())
}
