//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use satsuma::config::{Config, Flags, Loaded};
use satsuma::server::{Server, healthcheck};

/// A self-hosted realtime room server that takes the place of Orange Meets' own server.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    /// The configuration file; by default satsuma.toml or config/satsuma.toml, if there is one.
    #[arg(long, global = true, env = "SATSUMA_CONFIG")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeFlags,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server (what happens without a command).
    Serve(ServeFlags),
    /// Report every fault in the configuration.
    CheckConfig,
    /// Ask the running server whether it is alive.
    Healthcheck,
}

#[derive(Args, Default)]
struct ServeFlags {
    /// Where to listen, over http.listen; port 0 lets the system choose.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Where data is kept, over data_dir.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let command = cli.command.unwrap_or(Command::Serve(cli.serve));
    match run(cli.config, command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("satsuma: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(file: Option<PathBuf>, command: Command) -> Result<(), Box<dyn std::error::Error>> {
    let flags = match &command {
        Command::Serve(flags) => Flags { listen: flags.listen.clone(), data_dir: flags.data_dir.clone() },
        Command::CheckConfig | Command::Healthcheck => Flags::default(),
    };
    let Loaded { config, warnings, .. } = Config::load(file.as_deref(), std::env::vars_os(), &flags)?;
    for warning in warnings {
        eprintln!("satsuma: {warning}");
    }
    match command {
        Command::Serve(_) => {
            satsuma::telemetry::init(&config.log)?;
            Server::start(config).await?.run_until_signal().await?;
        }
        Command::CheckConfig => println!("the configuration is good"),
        Command::Healthcheck => healthcheck(&config).await?,
    }
    Ok(())
}
