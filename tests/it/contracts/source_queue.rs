//! What a queue does beyond what every source does: leases, counts and dead letters, on a real server.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use veriff_archive::clock::{Clock, ManualClock, SystemClock};
use veriff_archive::error::Code;
use veriff_archive::model::SessionId;
use veriff_archive::source::sqs::{SqsSource, Terms};
use veriff_archive::source::{Checks, Delivery, Place, QueueSettings, Release, Source};

use super::source::suite;
use crate::support::sqs::{Kind, Queue, sqs};

/// An empty queue ends these sources after the least that a long poll can wait.
const SOON: Duration = Duration::from_secs(1);

/// Never: the test ends first.
const NEVER: Duration = Duration::ZERO;

/// Longer than any test takes, so that only what is done to a message brings it back.
const LONG: Duration = Duration::from_mins(10);

fn checks(clock: Arc<dyn Clock>) -> Checks {
    Checks { classes: BTreeSet::new(), integrations: BTreeSet::from(["default".to_owned()]), clock }
}

/// Opens a queue for a worker with room for so many sessions; a quarter of that is asked for at once.
async fn open(queue: &Queue, idle_exit: Duration, lease: Duration, sessions_in_flight: usize) -> SqsSource {
    queue.source(idle_exit, Terms { lease, sessions_in_flight }, checks(Arc::new(SystemClock))).await
}

async fn queue_of(bodies: &[&str]) -> Queue {
    let queue = sqs().await.create_queue(Kind::Standard, None).await;
    queue.send(bodies).await;
    queue
}

async fn next(source: &mut SqsSource) -> Delivery {
    source.receive().await.unwrap().expect("a delivery")
}

fn id(delivery: &Delivery) -> &str {
    delivery.record.as_ref().unwrap().session_id.as_str()
}

#[tokio::test]
async fn a_queue_keeps_the_contract_of_a_source() {
    for kind in [Kind::Standard, Kind::Fifo] {
        suite(async |text: &'static str| {
            let queue = sqs().await.create_queue(kind, None).await;
            queue.send(&text.lines().collect::<Vec<_>>()).await;
            Box::new(open(&queue, SOON, LONG, 16).await) as Box<dyn Source>
        })
        .await;
    }
}

#[tokio::test]
async fn a_message_in_hand_stays_hidden_while_it_is_renewed_and_no_longer() {
    let queue = queue_of(&["one", "two"]).await;
    // Two are asked for: the other one waits in stock, and is renewed as well.
    let mut source = open(&queue, NEVER, Duration::from_secs(1), 8).await;
    let delivery = next(&mut source).await;
    assert_eq!(delivery.tries, 0);
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    let elsewhere = queue.receive_elsewhere(3);
    tokio::pin!(elsewhere);
    loop {
        tokio::select! {
            seen = &mut elsewhere => break assert_eq!(seen, []),
            _ = ticks.tick() => assert_eq!(source.extend(&[&delivery]).await.unwrap(), []),
        }
    }
    let mut seen = queue.receive_elsewhere(10).await;
    if seen.len() < 2 {
        seen.extend(queue.receive_elsewhere(10).await);
    }
    seen.sort();
    assert_eq!(seen, [("one".to_owned(), 2), ("two".to_owned(), 2)]);
}

#[tokio::test]
async fn what_is_given_back_at_once_is_received_again_at_once_and_counted() {
    let queue = queue_of(&["one"]).await;
    let mut source = open(&queue, SOON, LONG, 4).await;
    for tries in 0..3 {
        let delivery = next(&mut source).await;
        assert_eq!((id(&delivery), delivery.tries), ("one", tries));
        source.release(&delivery, Release::AtOnce).await.unwrap();
        assert_eq!(queue.depth().await, (1, 0));
    }
}

#[tokio::test]
async fn only_what_is_acknowledged_is_deleted_and_what_failed_waits() {
    let queue = queue_of(&["one", "two", "three"]).await;
    let mut source = open(&queue, SOON, LONG, 16).await;
    for how in [None, Some(Release::Later), Some(Release::ForGood)] {
        let delivery = next(&mut source).await;
        match how {
            None => source.acknowledge(&delivery).await.unwrap(),
            Some(how) => source.release(&delivery, how).await.unwrap(),
        }
    }
    assert_eq!(source.receive().await.unwrap(), None);
    assert_eq!(queue.depth().await, (0, 2));
}

#[tokio::test]
async fn what_cannot_be_read_goes_to_the_dead_letters_after_its_receives_and_is_never_deleted() {
    let queue = sqs().await.create_queue(Kind::Standard, Some(3)).await;
    queue.send(&["Ada Lovelace"]).await;
    let mut source = open(&queue, SOON, LONG, 4).await;
    let mut received = 0;
    while let Some(delivery) = source.receive().await.unwrap() {
        received += 1;
        let Place::Message(message) = &delivery.place else { panic!("{delivery:?}") };
        assert!(!message.is_empty());
        let reason = delivery.record.clone().unwrap_err().reason;
        assert_eq!(reason, "the session id has a character outside A-Z a-z 0-9 _ -");
        source.release(&delivery, Release::AtOnce).await.unwrap();
    }
    assert_eq!(received, 3);
    assert_eq!(queue.depth().await, (0, 0));
    assert_eq!(queue.dead_letters().await.into_iter().collect::<Vec<_>>(), [("Ada Lovelace".to_owned(), 1)]);
}

#[tokio::test]
async fn after_eleven_hours_a_message_is_given_back_and_its_session_is_lost() {
    let queue = queue_of(&["one", "two"]).await;
    let clock = Arc::new(ManualClock::at("2026-11-23T12:00:00Z".parse().unwrap()));
    let clock_of_source: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
    let terms = Terms { lease: LONG, sessions_in_flight: 8 };
    let mut source = queue.source(NEVER, terms, checks(clock_of_source)).await;
    let delivery = next(&mut source).await;
    clock.advance(Duration::from_secs(11 * 3600 - 1));
    assert_eq!(source.extend(&[&delivery]).await.unwrap(), []);
    assert_eq!(queue.depth().await, (0, 2));
    clock.advance(Duration::from_secs(1));
    let lost = source.extend(&[&delivery]).await.unwrap();
    assert_eq!(lost.iter().map(SessionId::as_str).collect::<Vec<_>>(), [id(&delivery)]);
    assert_eq!(queue.depth().await, (2, 0));
    // It is not ours any more: what becomes of it here changes nothing there.
    source.release(&delivery, Release::Later).await.unwrap();
    assert_eq!(source.extend(&[&delivery]).await.unwrap(), []);
    assert_eq!(queue.depth().await, (2, 0));
}

#[tokio::test]
async fn a_message_that_another_worker_finished_is_reported_as_lost() {
    let queue = queue_of(&["one", "two"]).await;
    let clock = Arc::new(ManualClock::at("2026-11-23T12:00:00Z".parse().unwrap()));
    let clock_of_source: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
    let terms = Terms { lease: LONG, sessions_in_flight: 8 };
    let mut source = queue.source(NEVER, terms, checks(clock_of_source)).await;
    let (one, two) = (next(&mut source).await, next(&mut source).await);
    queue.delete(one.receipt.as_ref().unwrap()).await;
    assert_eq!(source.extend(&[&one, &two]).await.unwrap(), []);
    clock.advance(LONG / 3);
    let lost = source.extend(&[&one, &two]).await.unwrap();
    assert_eq!(lost.iter().map(SessionId::as_str).collect::<Vec<_>>(), [id(&one)]);
    source.acknowledge(&two).await.unwrap();
    assert_eq!(queue.depth().await, (0, 0));
}

#[tokio::test]
async fn of_two_messages_about_a_session_one_may_be_lost() {
    let queue = queue_of(&["one", "one"]).await;
    let clock = Arc::new(ManualClock::at("2026-11-23T12:00:00Z".parse().unwrap()));
    let clock_of_source: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
    let terms = Terms { lease: LONG, sessions_in_flight: 8 };
    let mut source = queue.source(NEVER, terms, checks(clock_of_source)).await;
    let (first, second) = (next(&mut source).await, next(&mut source).await);
    queue.delete(first.receipt.as_ref().unwrap()).await;
    clock.advance(LONG / 3);
    assert_eq!(source.extend(&[&first, &second]).await.unwrap(), []);
}

#[tokio::test]
async fn what_was_taken_and_not_handed_out_is_given_back_at_the_end() {
    let queue = queue_of(&["one", "two", "three"]).await;
    let mut source = open(&queue, NEVER, LONG, 12).await;
    let _in_hand = next(&mut source).await;
    assert_eq!(queue.depth().await, (0, 3));
    source.close().await.unwrap();
    assert_eq!(queue.depth().await, (2, 1));
}

#[tokio::test]
async fn what_arrives_while_nobody_waits_is_noticed_and_given_back() {
    let queue = queue_of(&[]).await;
    let mut source = open(&queue, NEVER, LONG, 4).await;
    // Polled until the request is on its way, then dropped.
    assert!(tokio::time::timeout(SOON, source.receive()).await.is_err());
    queue.send(&["one"]).await;
    let mut tries = 0..100;
    while queue.depth().await != (0, 1) {
        assert!(tries.next().is_some(), "the request under way does not get the message");
    }
    source.close().await.unwrap();
    assert_eq!(queue.depth().await, (1, 0));

    // The same, but the answer is looked at by a renewal first.
    let mut source = open(&queue, NEVER, LONG, 4).await;
    assert!(source.receive().now_or_never().is_none());
    let mut tries = 0..1000;
    while !format!("{source:?}").contains("in_stock: 1") {
        assert!(tries.next().is_some(), "the answer is not looked at");
        assert_eq!(source.extend(&[]).await.unwrap(), []);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!((id(&next(&mut source).await), queue.depth().await), ("one", (0, 1)));
}

#[tokio::test]
async fn a_fifo_queue_is_worked_through_in_its_order() {
    let queue = sqs().await.create_queue(Kind::Fifo, Some(3)).await;
    let bodies: Vec<String> = (0..12).map(|number| format!("s{number:02}")).collect();
    queue.send(&bodies).await;
    let mut source = open(&queue, SOON, LONG, 16).await;
    let mut seen = Vec::new();
    while let Some(delivery) = source.receive().await.unwrap() {
        seen.push(id(&delivery).to_owned());
        source.acknowledge(&delivery).await.unwrap();
    }
    assert_eq!(seen, bodies);
    assert_eq!(queue.depth().await, (0, 0));
}

#[tokio::test]
async fn a_queue_that_does_not_exist_is_denied() {
    let mut queue = queue_of(&[]).await;
    queue.url.push_str("-of-nobody");
    let error = open(&queue, SOON, LONG, 4).await.receive().await.unwrap_err();
    assert_eq!(error.code(), Code::QueueDenied);
    assert!(error.to_string().contains("the queue does not exist"), "{error}");
}

#[tokio::test]
async fn an_address_that_is_no_queue_is_a_mistake_in_the_configuration() {
    let settings = QueueSettings { endpoint_url: None, idle_exit: SOON };
    let terms = Terms { lease: LONG, sessions_in_flight: 4 };
    let opened = SqsSource::open("arn:aws:sqs:eu-central-1:1:q", &settings, terms, checks(Arc::new(SystemClock)));
    assert_eq!(opened.await.unwrap_err().code(), Code::ConfigInvalid);
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_away_is_unavailable_in_the_end() {
    let error = open(&Queue::nowhere(), SOON, LONG, 4).await.receive().await.unwrap_err();
    assert_eq!(error.code(), Code::QueueUnavailable);
}
