//! Intake: what becomes of a delivery before its session is begun.
//!
//! It is begun, refused because it cannot be worked on, or released to its source because nothing more is begun. Whatever
//! happens to it, it is counted once.

use std::sync::Arc;

use super::flight::{Flight, not_done};
use super::results::ResultLine;
use super::{Pass, Taken, Worker, code_of};
use crate::error::Code;
use crate::ledger::{LedgerError, State};
use crate::model::request::SessionRequest;
use crate::model::retention::Mode;
use crate::session::visit::Outcome;
use crate::source::{Delivery, Release, Source};
use crate::stop::Stopped;
use crate::veriff::settings::IntegrationKind;

impl Worker {
    /// Begins a session, or settles a delivery that cannot be begun.
    pub(super) async fn take(&mut self, delivery: Delivery, source: &mut dyn Source, flight: &mut Flight, pass: Pass) {
        let (record, desk) = match self.admit(&delivery) {
            Ok(admitted) => admitted,
            Err(reason) => {
                let reason = format!("{}: {reason}", delivery.place);
                return self.refuse(delivery, source, &reason).await;
            }
        };
        let Some((integration, stopped)) =
            self.desks.get(&desk).map(|desk| (Arc::clone(&desk.integration), desk.gate.stopped()))
        else {
            return;
        };
        if let Some(reason) = stopped {
            return self.give_back(delivery, source, code_of(reason), reason.as_str()).await;
        }
        if self.stopped.is_some() || pass == Pass::Telling {
            return self.give_back_deferred(delivery, source).await;
        }
        let skip_settled = match self.skip_settled(&record).await {
            Ok(skip_settled) => skip_settled,
            Err(error) => {
                tracing::error!(error.code = %error.code(), "the run ends: {error}");
                self.stopped.get_or_insert(Stopped::Fatal(error.code()));
                return self.give_back(delivery, source, error.code(), "the ledger cannot be read").await;
            }
        };
        let visit = self.visit(integration, record.clone(), skip_settled);
        flight.begin(Taken { delivery, record, desk }, visit);
    }

    /// Tells whether settled sessions are skipped and, if so, whether the ledger knows this one as settled: a manifest is
    /// not written again merely because time has passed, so the store alone may not tell.
    async fn skip_settled(&self, record: &SessionRequest) -> Result<Option<bool>, LedgerError> {
        if !self.skip_settled {
            return Ok(None);
        }
        let row = self.ledger.session(&record.session_id).await?;
        Ok(Some(row.is_some_and(|row| row.state == State::Archived && row.settled && row.complete)))
    }

    /// Counts a line that cannot be worked on as failed, with its place and the reason.
    async fn refuse(&mut self, delivery: Delivery, source: &mut dyn Source, reason: &str) {
        tracing::error!(run.id = %self.archiver.run.id(), error.code = %Code::InputInvalid, "{reason}");
        self.count("", Outcome::Failed, Some(Code::InputInvalid));
        self.board.sessions.increment();
        self.board.failed.increment();
        let session = match &delivery.record {
            Ok(record) => Some(record.clone()),
            Err(bad) => bad.session_id.clone().map(SessionRequest::of),
        };
        if let Some(record) = session {
            let mut line = ResultLine::of(record, Outcome::Failed);
            line.code = Some(Code::InputInvalid);
            line.message = Some(reason.to_owned());
            self.tell(&line).await;
        }
        self.hand_back(&delivery, source, Release::Later).await;
    }

    /// Gives a delivery back to its source.
    pub(super) async fn hand_back(&mut self, delivery: &Delivery, source: &mut dyn Source, how: Release) {
        if let Err(error) = source.release(delivery, how).await {
            self.source_failed(&error);
        }
    }

    /// Gives a delivery back that was never begun.
    pub(super) async fn give_back(&mut self, delivery: Delivery, source: &mut dyn Source, code: Code, message: &str) {
        let Ok(record) = delivery.record.clone() else {
            let reason = delivery.place.to_string();
            return self.refuse(delivery, source, &reason).await;
        };
        let desk = self.desk_of(&record).unwrap_or_default();
        let done = not_done(Taken { delivery, record, desk }, code, message);
        self.write_down_pending(done, source).await;
    }

    /// Tells of a session that was set aside and is not tried again, with the code it was set aside for.
    async fn give_back_deferred(&mut self, delivery: Delivery, source: &mut dyn Source) {
        let row = match &delivery.record {
            Ok(record) => self.ledger.session(&record.session_id).await.ok().flatten(),
            Err(_) => None,
        };
        let code = row.as_ref().and_then(|row| row.code.as_deref()).and_then(Code::parse).unwrap_or(Code::RunStopped);
        let message = row.and_then(|row| row.message).unwrap_or_else(|| "the run was stopped".to_owned());
        self.give_back(delivery, source, code, &message).await;
    }

    /// Refuses what a record may not ask of an integration: media of people who only tried things out must not be locked
    /// for years against everyone.
    fn permit(&self, record: &SessionRequest, desk: &str) -> Result<(), &'static str> {
        let kind = self.desks.get(desk).map(|desk| desk.integration.client.settings().kind);
        let class = record.retention_class.as_deref().and_then(|name| self.archiver.writer.policy().class(name));
        if kind == Some(IntegrationKind::Test) && class.is_some_and(|class| class.mode == Mode::Compliance) {
            return Err("a test integration may not use a retention_class with mode COMPLIANCE");
        }
        Ok(())
    }

    /// Reads a delivery's record and finds its integration.
    fn admit(&self, delivery: &Delivery) -> Result<(SessionRequest, String), String> {
        let record = delivery.record.clone().map_err(|bad| bad.reason)?;
        let desk = self.desk_of(&record)?;
        self.permit(&record, &desk)?;
        Ok((record, desk))
    }

    /// Finds the integration of a record: its own, else the default, else the only one.
    fn desk_of(&self, record: &SessionRequest) -> Result<String, &'static str> {
        let name = record.integration.as_ref().or(self.default_integration.as_ref());
        match name {
            Some(name) if self.desks.contains_key(name) => Ok(name.clone()),
            Some(_) => Err("the integration is not a configured one"),
            None if self.desks.len() == 1 => self.desks.keys().next().cloned().ok_or("no integration is configured"),
            None => Err("the request names no integration and several are configured; use --integration"),
        }
    }
}
