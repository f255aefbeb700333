//! A client of the stream of events, as the standard has it (HTML, section 9.2).

use std::time::Duration;

use serde_json::Value;

use super::Client;

/// An open stream.
pub struct EventStream {
    response: reqwest::Response,
    received: Vec<u8>,
    /// What it would send as `Last-Event-ID`.
    pub last_id: String,
    /// Comments so far: signs of life.
    pub comments: usize,
}

/// An event as it was received.
#[derive(Debug, Clone)]
pub struct Event {
    pub kind: String,
    pub id: String,
    pub json: Value,
}

impl EventStream {
    /// Opens a stream, at its beginning or after the event with this id.
    pub async fn open(client: &Client, last_id: Option<&str>) -> Self {
        let mut request = client.request(reqwest::Method::GET, "/v1/events");
        if let Some(last_id) = last_id {
            request = request.header("last-event-id", last_id);
        }
        Self::send(request).await
    }

    /// Opens a stream by some other request. Returns when the stream has begun.
    pub async fn send(request: reqwest::RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        assert_eq!(response.status().as_u16(), 200, "{response:?}");
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut stream = Self { response, received: Vec::new(), last_id: String::new(), comments: 0 };
        let greeting = loop {
            match stream.block_end() {
                Some(end) => break stream.received.drain(..end + 2).collect::<Vec<u8>>(),
                None => assert!(stream.receive().await, "the stream ended before it began"),
            }
        };
        let greeting = String::from_utf8(greeting).unwrap();
        if let Some((id_alone, reset)) = greeting.split_once("event: ") {
            // An event that comes with the greeting is still an event.
            stream.received.splice(..0, format!("event: {reset}").into_bytes());
            assert!(stream.dispatch(id_alone).is_none());
        } else {
            assert!(stream.dispatch(&greeting).is_none());
        }
        stream
    }

    /// Reads more. `false`: the stream has ended.
    async fn receive(&mut self) -> bool {
        match self.response.chunk().await {
            Ok(Some(chunk)) => {
                self.received.extend_from_slice(&chunk);
                true
            }
            Ok(None) | Err(_) => false,
        }
    }

    fn block_end(&self) -> Option<usize> {
        self.received.windows(2).position(|pair| pair == b"\n\n")
    }

    /// The next event; `None`: the stream has ended.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some(end) = self.block_end() {
                let block: Vec<u8> = self.received.drain(..end + 2).collect();
                if let Some(event) = self.dispatch(std::str::from_utf8(&block).unwrap()) {
                    return Some(event);
                }
            }
            if !self.receive().await {
                return None;
            }
        }
    }

    /// The next event, which has to come in time.
    pub async fn expect_any(&mut self) -> Event {
        let event = tokio::time::timeout(Duration::from_secs(5), self.next()).await;
        let event = event.unwrap_or_else(|_late| panic!("no event within 5 s"));
        let event = event.unwrap_or_else(|| panic!("the stream has ended"));
        assert_eq!(event.json["type"], event.kind, "{event:?}");
        event
    }

    /// The next event, which has to be one of these.
    pub async fn expect(&mut self, kind: &str) -> Event {
        let event = self.expect_any().await;
        assert_eq!(event.kind, kind, "{event:?}");
        event
    }

    /// Nothing more comes: the stream ends, within a time.
    pub async fn expect_end(&mut self, limit: Duration) {
        let event = tokio::time::timeout(limit, self.next()).await;
        let event = event.unwrap_or_else(|_| panic!("the stream did not end within {limit:?}"));
        assert!(event.is_none(), "{event:?}");
    }

    fn dispatch(&mut self, block: &str) -> Option<Event> {
        let (mut kind, mut data) = (String::new(), None::<String>);
        for line in block.lines().filter(|line| !line.is_empty()) {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "" => self.comments += 1,
                "id" => value.clone_into(&mut self.last_id),
                "event" => value.clone_into(&mut kind),
                "data" => data = Some(data.map_or_else(String::new, |data| data + "\n") + value),
                "retry" => assert!(value.parse::<u64>().is_ok_and(|ms| ms >= 1000), "{line}"),
                other => panic!("{other} is no field: {block}"),
            }
        }
        let json = serde_json::from_str(&data?).unwrap();
        Some(Event { kind, id: self.last_id.clone(), json })
    }
}
