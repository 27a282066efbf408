//! The command line.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use satsuma::config::{Config, Flags};
use satsuma::operate::{OperateCommand, OperateError, operate, revoke_tokens};
use satsuma::server::{TOKEN_HELP, TokenOptions, check, check_engine, healthcheck, mint_token, run};
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
    #[command(after_help = TOKEN_HELP)]
    Token(TokenOptions),
    Load(satsuma_load::Options),
}

impl Cli {
    /// Parses the command line. The flags of a server are in the help of the commands that need them; the others
    /// accept them all the same, since a script may give all commands the same ones.
    fn of_arguments() -> Result<Self, clap::Error> {
        let command = Self::command();
        let hidden = |names: &[&str]| -> Vec<clap::Arg> {
            let is_named = |arg: &&clap::Arg| names.contains(&arg.get_id().as_str());
            command.get_arguments().filter(is_named).map(|arg| arg.clone().hide(true)).collect()
        };
        let server = hidden(&["listen", "tls_self_signed", "client"]);
        let all = hidden(&["config", "data_dir", "listen", "tls_self_signed", "client"]);
        let command = command.mut_subcommands(|command| match command.get_name() {
            "serve" | "check-config" => command,
            "load" => command.args(all.clone()),
            _ => command.args(server.clone()),
        });
        Self::from_arg_matches(&command.get_matches())
    }
}

fn main() -> ExitCode {
    let cli = Cli::of_arguments().unwrap_or_else(|error| error.exit());
    let done = match cli {
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
