//! `wherry logs`: a container's log, streamed.

mod workload;

use anyhow::Context;
use clap::Args;
use futures::TryStreamExt;
use http_body_util::BodyExt;

use crate::client::Connection;
use crate::output;

/// Show a container's log.
#[derive(Debug, Args)]
pub struct Logs {
    #[command(flatten)]
    connection: Connection,
    /// The pod, as NAME or `pod/NAME`, or what has pods, as `deployment/NAME`: one is chosen
    target: String,
    /// The container [default: the first]
    #[arg(short, long)]
    container: Option<String>,
    /// Go on as lines are written
    #[arg(short, long)]
    follow: bool,
    /// Of the container's last run before this one
    #[arg(short, long)]
    previous: bool,
    /// Only the last lines; all, if negative
    #[arg(long, value_name = "LINES", allow_hyphen_values = true, value_parser = lines)]
    tail: Option<i64>,
    /// Only lines of the last seconds, or of a span such as `5m` or `2h`
    #[arg(long, value_name = "SPAN", value_parser = seconds)]
    since: Option<u64>,
    /// With each line's time
    #[arg(long)]
    timestamps: bool,
}

fn lines(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| "it is not a number of lines".to_owned())
}

/// `90`, `90s`, `5m`, `2h` as seconds.
pub(super) fn seconds(text: &str) -> Result<u64, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err("a number with s, m or h".to_owned()),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(factor))
        .filter(|n| *n > 0)
        .ok_or_else(|| "a number above 0 with s, m or h".to_owned())
}

impl Logs {
    pub async fn run(self) -> anyhow::Result<()> {
        let client = self.connection.open().await?;
        let pod = workload::pod(&client, &self.target).await?;
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for (name, set) in [("follow", self.follow), ("previous", self.previous), ("timestamps", self.timestamps)] {
            if set {
                query.append_pair(name, "true");
            }
        }
        let tail = self.tail.and_then(|lines| u64::try_from(lines).ok());
        for (name, value) in [("tailLines", tail), ("sinceSeconds", self.since)] {
            if let Some(value) = value {
                query.append_pair(name, &value.to_string());
            }
        }
        let container = match self.container {
            Some(container) => Some(container),
            None => workload::container(&client, &pod).await,
        };
        if let Some(container) = &container {
            query.append_pair("container", container);
        }
        let path = format!("/api/v1/namespaces/{}/pods/{pod}/log?{}", client.namespace, query.finish());
        let mut log = client.open(http::Method::GET, &path, "*/*", None).await?.into_body().into_data_stream();
        while let Some(bytes) = log.try_next().await.context("the log broke off")? {
            output::raw(&bytes);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_seconds_with_a_unit() {
        assert_eq!(["90", "90s", "5m", "2h"].map(|s| seconds(s).unwrap()), [90, 90, 300, 7200]);
        for bad in ["", "0", "5d", "m", "-1", "99999999999999999999h"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
