//! The queue itself: where it is, and the requests to it.
//!
//! The SDK tries once; the limits here decide about more. Nothing of a message but its body, its receipt and how often
//! it was received is asked for.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::StalledStreamProtectionConfig;
use aws_sdk_sqs::config::http::HttpResponse;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::types::{ChangeMessageVisibilityBatchRequestEntry, MessageSystemAttributeName, QueueAttributeName};
use futures_util::future::join_all;
use url::Url;

use super::error::{Fault, fault_of, fault_of_entry};
use crate::aws;
use crate::clock::Clock;
use crate::error::Code;
use crate::retry::{Backoff, Tries};
use crate::source::{QueueSettings, SourceError};

/// A server that does not take a connection within this time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest time for an answer, on top of what a long poll waits.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How often messages are asked for before the run ends.
const RECEIVE_TRIES: u32 = 8;

/// How often anything else is tried: few, because the worker waits meanwhile, and a message comes again by itself.
const TRIES: u32 = 3;

/// The most messages that one request may name.
const MAX_BATCH: usize = 10;

/// The region that is signed for where an SQS-compatible server is named and no region.
const COMPATIBLE_REGION: &str = "us-east-1";

/// A queue.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    client: Client,
    url: String,
    clock: Arc<dyn Clock>,
}

/// A message as the queue hands it out. Not for printing: its body may contain personal data.
pub(super) struct Message {
    pub(super) id: String,
    pub(super) receipt: String,
    pub(super) body: String,
    /// How often it was received, this time included.
    pub(super) receives: u32,
}

/// What a queue says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QueueReport {
    /// Messages that can be received, approximately.
    pub visible: u64,
    /// Messages that are in some worker's hands.
    pub in_flight: u64,
    /// Messages that cannot be received yet.
    pub delayed: u64,
    /// How long messages are hidden where nobody says otherwise; this program always does.
    pub visibility_timeout: Option<Duration>,
    /// How long messages are kept.
    pub kept_for: Option<Duration>,
    /// Where messages go that were received too often; nowhere if none.
    pub redrive: Option<Redrive>,
    /// It keeps an order.
    pub is_fifo: bool,
}

/// What becomes of messages that were received too often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redrive {
    /// The dead-letter queue.
    pub target_arn: String,
    /// How often a message is received before.
    pub max_receives: u32,
}

impl QueueReport {
    /// Returns how many messages there are in all, approximately.
    #[must_use]
    pub const fn messages(&self) -> u64 {
        self.visible + self.in_flight + self.delayed
    }
}

impl Queue {
    pub(super) async fn connect(
        url: &str,
        settings: &QueueSettings,
        credentials: Option<Credentials>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, SourceError> {
        let invalid = |reason: &str| SourceError::Queue {
            action: "use the queue",
            code: Code::ConfigInvalid,
            reason: reason.to_owned(),
        };
        let address = parse_url(url).ok_or_else(|| {
            invalid("the URL of a queue is https://sqs.REGION.amazonaws.com/ACCOUNT/NAME, without query or user")
        })?;
        let endpoint = settings.endpoint_url.clone().or_else(|| own_endpoint(&address));
        let region = region_of(&address, endpoint.is_some()).await;
        let region = region.ok_or_else(|| invalid("no region is known; set AWS_REGION"))?;
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .region(region)
            // Retries are ours: the SDK's quota is shared by the whole process and must not be what ends a run.
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).build())
            // A long poll is nothing but a stalled stream; our own limits bound every request.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        if let Some(endpoint) = endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        if let Some(credentials) = credentials {
            loader = loader.credentials_provider(credentials);
        }
        Ok(Self { client: Client::new(&loader.load().await), url: url.to_owned(), clock })
    }

    /// Waits for messages, `wait` at the longest, and hides them for `lease`.
    pub(super) async fn receive(
        &self,
        limit: i32,
        wait: Duration,
        lease: Duration,
    ) -> Result<Vec<Message>, SourceError> {
        const ACTION: &str = "receive messages from the queue";
        let answer = self.call(ACTION, wait + ANSWER_TIMEOUT, RECEIVE_TRIES, || {
            let request = self.client.receive_message().queue_url(&self.url);
            let request = request.max_number_of_messages(limit).wait_time_seconds(whole_seconds(wait));
            let request = request.visibility_timeout(whole_seconds(lease));
            request.message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount).send()
        });
        let answer = answer.await.map_err(|fault| fault.into_error(ACTION))?;
        Ok(answer.messages.unwrap_or_default().into_iter().filter_map(message_of).collect())
    }

    /// Deletes a message.
    pub(super) async fn delete(&self, receipt: &str) -> Result<(), Fault> {
        let answer = self.call("delete a message", ANSWER_TIMEOUT, TRIES, || {
            self.client.delete_message().queue_url(&self.url).receipt_handle(receipt).send()
        });
        answer.await.map(|_| ())
    }

    /// Hides a message for so long from now; not at all with zero.
    pub(super) async fn hide(&self, receipt: &str, how_long: Duration) -> Result<(), Fault> {
        let answer = self.call("release a message", ANSWER_TIMEOUT, TRIES, || {
            let request = self.client.change_message_visibility().queue_url(&self.url).receipt_handle(receipt);
            request.visibility_timeout(whole_seconds(how_long)).send()
        });
        answer.await.map(|_| ())
    }

    /// Hides many messages, each for so long from now, and returns what became of each. Tried `tries` times as a whole.
    ///
    /// # Errors
    /// The queue did not answer, or refused.
    pub(super) async fn hide_all(
        &self,
        messages: &[(&str, Duration)],
        tries: u32,
    ) -> Result<Vec<Result<(), Fault>>, Fault> {
        let batches = messages.chunks(MAX_BATCH).map(|batch| self.hide_batch(batch, tries));
        let mut all = Vec::with_capacity(messages.len());
        for batch in join_all(batches).await {
            all.extend(batch?);
        }
        Ok(all)
    }

    async fn hide_batch(&self, batch: &[(&str, Duration)], tries: u32) -> Result<Vec<Result<(), Fault>>, Fault> {
        let answer = self
            .call("change how long messages are hidden", ANSWER_TIMEOUT, tries, || {
                let entries = batch.iter().enumerate().filter_map(|(at, (receipt, how_long))| {
                    let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(at.to_string());
                    let entry = entry.receipt_handle(*receipt).visibility_timeout(whole_seconds(*how_long));
                    // Both fields that must be there are.
                    entry.build().ok()
                });
                let request = self.client.change_message_visibility_batch().queue_url(&self.url);
                request.set_entries(Some(entries.collect())).send()
            })
            .await?;
        let mut found: Vec<Result<(), Fault>> = vec![Ok(()); batch.len()];
        for failed in answer.failed() {
            let at: Option<usize> = failed.id().parse().ok();
            if let Some(entry) = at.and_then(|at| found.get_mut(at)) {
                let message = failed.message().unwrap_or_default();
                *entry = Err(fault_of_entry(failed.code(), message, failed.sender_fault()));
            }
        }
        Ok(found)
    }

    /// Asks what the queue says of itself.
    pub(super) async fn report(&self) -> Result<QueueReport, SourceError> {
        const ACTION: &str = "read the queue's attributes";
        let answer = self.call(ACTION, ANSWER_TIMEOUT, TRIES, || {
            let request = self.client.get_queue_attributes().queue_url(&self.url);
            request.attribute_names(QueueAttributeName::All).send()
        });
        let answer = answer.await.map_err(|fault| fault.into_error(ACTION))?;
        let text = |name: QueueAttributeName| answer.attributes().and_then(|all| all.get(&name)).map(String::as_str);
        let number = |name| text(name).and_then(|text| text.parse::<u64>().ok());
        Ok(QueueReport {
            visible: number(QueueAttributeName::ApproximateNumberOfMessages).unwrap_or(0),
            in_flight: number(QueueAttributeName::ApproximateNumberOfMessagesNotVisible).unwrap_or(0),
            delayed: number(QueueAttributeName::ApproximateNumberOfMessagesDelayed).unwrap_or(0),
            visibility_timeout: number(QueueAttributeName::VisibilityTimeout).map(Duration::from_secs),
            kept_for: number(QueueAttributeName::MessageRetentionPeriod).map(Duration::from_secs),
            redrive: text(QueueAttributeName::RedrivePolicy).and_then(redrive_of),
            is_fifo: text(QueueAttributeName::FifoQueue) == Some("true"),
        })
    }

    /// Sends a request until it is answered, within a limit of tries and a limit of time each.
    async fn call<T, E, F>(
        &self,
        action: &'static str,
        limit: Duration,
        tries: u32,
        send: impl Fn() -> F + Send + Sync,
    ) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>> + Send,
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let wait = |tries: &mut Tries, fault: &Fault| {
            let Fault::Unavailable(reason, asked) = fault else { return None };
            tracing::debug!("cannot {action} now: {reason}");
            // No longer than an answer may take: whoever asks holds messages whose leases run out.
            tries.wait(asked.map(|asked| asked.min(limit)))
        };
        let once = || async { aws::ask("SQS", limit, self.clock.now(), send()).await.map_err(fault_of) };
        Backoff::of_tries(tries).begin().run(wait, once).await
    }
}

/// Takes what we need of a message; one without a receipt could not be released and does not exist.
fn message_of(message: aws_sdk_sqs::types::Message) -> Option<Message> {
    let receives = message
        .attributes()
        .and_then(|attributes| attributes.get(&MessageSystemAttributeName::ApproximateReceiveCount))
        .and_then(|text| text.parse().ok());
    Some(Message {
        id: message.message_id?,
        receipt: message.receipt_handle?,
        body: message.body.unwrap_or_default(),
        receives: receives.unwrap_or(1),
    })
}

fn redrive_of(text: &str) -> Option<Redrive> {
    let policy: serde_json::Value = serde_json::from_str(text).ok()?;
    let max = policy.get("maxReceiveCount")?;
    // AWS takes and gives the number also as text.
    let max = max.as_u64().or_else(|| max.as_str()?.parse().ok())?;
    let target_arn = policy.get("deadLetterTargetArn")?.as_str()?.to_owned();
    Some(Redrive { target_arn, max_receives: u32::try_from(max).unwrap_or(u32::MAX) })
}

/// Rounds up, because zero seconds would be no wait and no lease.
fn whole_seconds(duration: Duration) -> i32 {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    i32::try_from(seconds).unwrap_or(i32::MAX)
}

fn parse_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let is_plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    let is_queue = matches!(url.scheme(), "http" | "https") && url.has_host() && url.path().len() > 1;
    (is_plain && url.password().is_none() && is_queue).then_some(url)
}

/// Returns the address to send to where the queue is not at one of AWS's own, which the SDK finds better by itself.
fn own_endpoint(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    let is_private = host.split('.').any(|label| label.starts_with("vpce"));
    let is_aws = [".amazonaws.com", ".amazonaws.com.cn", ".api.aws", ".api.amazonwebservices.com.cn"]
        .iter()
        .any(|ending| host.ends_with(ending));
    (is_private || !is_aws).then(|| url.origin().ascii_serialization())
}

/// Reads the region off the host of a queue: `sqs.REGION.amazonaws.com`, or the older `REGION.queue.amazonaws.com`.
fn region_in(url: &Url) -> Option<&str> {
    let labels: Vec<&str> = url.host_str()?.split('.').collect();
    let at = |label: &str| labels.iter().position(|other| *other == label);
    let region = if let Some(at) = at("sqs").or_else(|| at("sqs-fips")) {
        labels.get(at + 1).copied()
    } else {
        at("queue").map(|at| if at == 0 { "us-east-1" } else { labels[at - 1] })
    };
    // A region has dashes and ends in a digit; `localhost` and `amazonaws` are none.
    region.filter(|text| text.contains('-') && text.ends_with(|c: char| c.is_ascii_digit()))
}

async fn region_of(url: &Url, has_endpoint: bool) -> Option<Region> {
    if let Some(region) = region_in(url) {
        return Some(Region::new(region.to_owned()));
    }
    let chain = if has_endpoint {
        // Not the default chain: it would also ask the metadata service of a cloud that may not be there.
        RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
            .or_else(ProfileFileRegionProvider::new())
            .or_else(Region::from_static(COMPATIBLE_REGION))
    } else {
        RegionProviderChain::default_provider()
    };
    chain.region().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_stands_in_the_host_of_a_queue() {
        for (url, region, endpoint) in [
            ("https://sqs.eu-central-1.amazonaws.com/123456789012/sessions", Some("eu-central-1"), None),
            ("https://sqs-fips.us-gov-west-1.amazonaws.com/1/q", Some("us-gov-west-1"), None),
            ("https://sqs.cn-north-1.amazonaws.com.cn/1/q", Some("cn-north-1"), None),
            ("https://sqs.eu-west-1.api.aws/1/q", Some("eu-west-1"), None),
            ("https://eu-west-2.queue.amazonaws.com/1/q", Some("eu-west-2"), None),
            ("https://queue.amazonaws.com/1/q", Some("us-east-1"), None),
            (
                "https://vpce-1-2.sqs.us-east-2.vpce.amazonaws.com/1/q",
                Some("us-east-2"),
                Some("https://vpce-1-2.sqs.us-east-2.vpce.amazonaws.com"),
            ),
            ("http://127.0.0.1:5000/1/q", None, Some("http://127.0.0.1:5000")),
            (
                "http://sqs.us-east-1.localhost.localstack.cloud:4566/0/q",
                Some("us-east-1"),
                Some("http://sqs.us-east-1.localhost.localstack.cloud:4566"),
            ),
        ] {
            let parsed = parse_url(url).unwrap();
            assert_eq!(region_in(&parsed), region, "{url}");
            assert_eq!(own_endpoint(&parsed).as_deref(), endpoint, "{url}");
        }
    }

    #[test]
    fn only_the_address_of_a_queue_is_one() {
        for bad in [
            "",
            "sessions",
            "arn:aws:sqs:eu-central-1:1:q",
            "https://sqs.eu-central-1.amazonaws.com",
            "ftp://host/q",
            "https://user@host/q",
            "https://user:word@host/q",
            "https://host/q?x=1",
            "https://host/q#x",
        ] {
            assert_eq!(parse_url(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_redrive_policy_is_read_in_both_forms() {
        for max in ["5", "\"5\""] {
            let text =
                format!("{{\"deadLetterTargetArn\":\"arn:aws:sqs:eu-central-1:1:dead\",\"maxReceiveCount\":{max}}}");
            let expected = Redrive { target_arn: "arn:aws:sqs:eu-central-1:1:dead".to_owned(), max_receives: 5 };
            assert_eq!(redrive_of(&text), Some(expected));
        }
        for bad in ["", "{}", "[]", "{\"maxReceiveCount\":5}"] {
            assert_eq!(redrive_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_part_of_a_second_is_a_whole_one() {
        let seconds = [0, 1, 999, 1000, 1001].map(|ms| whole_seconds(Duration::from_millis(ms)));
        assert_eq!(seconds, [0, 1, 1, 1, 2]);
    }
}
