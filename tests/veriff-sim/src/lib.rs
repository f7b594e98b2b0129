//! A local simulator of the part of Veriff's API that an archiver meets, with scripted faults.
//!
//! Tests, benches and the demo start it in their own process; the binary of the same name serves it to anyone. It
//! checks signatures, records what it was asked, and every byte it serves follows from ids alone:
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use veriff_sim::{Attempt, Effect, Endpoint, Fault, Session, Simulator, World, id};
//!
//! let session = Session::new(id("first"))
//!     .attempt(Attempt::resubmission_requested(id("try")).image("face", 200_000))
//!     .attempt(Attempt::approved(id("again")).image("face", 200_000).nfc(30_000));
//! let sim = Simulator::start(World::new().session(session)).await?;
//! sim.set_fault(Fault::once(Effect::status(503)).on(Endpoint::Media));
//! println!("{}", sim.base_url());
//! # Ok(())
//! # }
//! ```

#![expect(clippy::disallowed_methods, reason = "a server has a clock of its own, which is not the client's")]

mod answers;
mod auth;
mod body;
mod builder;
mod control;
mod draft;
mod faults;
mod ids;
mod knobs;
mod media;
mod record;
mod request;
mod server;
mod session;
mod simulator;
mod stream;
mod world;

pub use auth::{AUTH_FAILURE_MESSAGE, AuthOutcome, sign};
pub use body::{media_bytes, media_sha256};
pub use builder::{WorldBuilder, some_faults};
pub use faults::{Effect, Endpoint, Fault, FaultId};
pub use ids::id;
pub use knobs::{Gzip, Knobs, RateLimit, RetryAfter, Signatures};
pub use media::{Kind, Media, SizeForm};
pub use record::{Seen, Stats};
pub use session::{Attempt, Document, Presence, Session};
pub use simulator::Simulator;
pub use world::{DEFAULT_INTEGRATION, Integration, World};
