//! `doctor`: examines everything a run needs and names the repairs; changes nothing.

use std::io::{self, Write};
use std::sync::Arc;

use clap::Args;

use super::output::{Answer, print};
use super::{GlobalArgs, StoreArgs};
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, ConfigError};
use crate::doctor::{CheckStatus, Doctor};
use crate::error::Exit;

const AFTER_HELP: &str = "\
Writes nothing, and sends Veriff no request: it only connects to its host.

Exit codes:
    0  a run can start; there may be warnings
    5  Veriff, the store or the queue cannot be reached now
   77  credentials refused, clock off, or the bucket or queue is not as it must be
   78  the configuration or the ledger is not valid";

/// Check configuration, credentials, clock, bucket, ledger and queue
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// The queue.
    #[arg(long, value_name = "URL", help = "Also check this SQS queue: https://sqs.REGION.amazonaws.com/ACCOUNT/NAME")]
    queue: Option<String>,
}

pub(super) async fn run(args: &DoctorArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut doctor = Doctor::new(clock.now());
    match global.load_config(args.store.store.as_deref()) {
        Ok(config) => {
            look_at_config(&mut doctor, &config);
            for integration in config.integrations.values() {
                doctor.look_at_secrets(integration).await;
                doctor.look_at_veriff(integration, &*clock).await;
            }
            if let Some(store) = &config.store {
                doctor.look_at_store(store, config.retention.demands_locks(), &clock).await;
            }
            doctor.look_at_ledger(&config.ledger_url).await;
            if let Some(url) = &args.queue {
                doctor.look_at_queue(url, &config.queue, config.limits.lease, &config.ledger_url).await;
            }
        }
        Err(error) => note_bad_config(&mut doctor, &error),
    }
    print(&doctor, global.format())?;
    Ok(doctor.exit())
}

fn note_bad_config(doctor: &mut Doctor, error: &ConfigError) {
    const REPAIR: &str = "correct it; `veriff-archive config check` reports the same without connecting";
    match error {
        ConfigError::Invalid(problems) => {
            for problem in problems {
                doctor.fail("configuration", Exit::Config, problem.to_string(), REPAIR);
            }
        }
        other => doctor.fail("configuration", Exit::Config, other.to_string(), REPAIR),
    }
}

fn look_at_config(doctor: &mut Doctor, config: &Config) {
    doctor.ok("configuration", "valid");
    for warning in &config.warnings {
        doctor.warn("configuration", warning, "make sure that this is intended");
    }
    // Of configured integrations each secret is looked at by itdoctor.
    let none = config.integrations.is_empty().then(|| config.missing_credentials());
    for problem in none.unwrap_or_default() {
        doctor.fail("credentials", Exit::Config, problem.to_string(), "set it for this process");
    }
    if let Err(error) = config.require_store() {
        note_bad_config(doctor, &error);
    }
}

impl Answer for Doctor {
    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let width = self.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
        for check in &self.checks {
            let status = match check.status {
                CheckStatus::Ok => "ok  ",
                CheckStatus::Warn => "warn",
                CheckStatus::Fail => "FAIL",
            };
            writeln!(out, "{status}  {:<width$}  {}", check.name, check.detail)?;
            if let Some(repair) = &check.repair {
                writeln!(out, "      {:<width$}  repair: {repair}", "")?;
            }
        }
        Ok(())
    }
}
