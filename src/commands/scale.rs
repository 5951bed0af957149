//! `wherry scale`: sets the number of replicas through the scale subresource.

use anyhow::bail;
use clap::Args;
use serde_json::json;

use crate::client::{Connection, JSON};
use crate::output;

/// Set the number of replicas.
#[derive(Debug, Args)]
pub struct Scale {
    #[command(flatten)]
    connection: Connection,
    /// KIND/NAME (`deployment/hello`), or KIND and NAME
    #[arg(required = true, num_args = 1..=2)]
    target: Vec<String>,
    #[arg(long, allow_hyphen_values = true, value_parser = replicas)]
    replicas: i32,
}

/// A number of replicas, which the API has as an int32.
fn replicas(text: &str) -> Result<i32, String> {
    if text.is_empty() || !text.trim_start_matches('-').bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("it is not a number".to_owned());
    }
    match text.parse::<i32>() {
        Ok(number) if number >= 0 => Ok(number),
        _ if text.starts_with('-') => Err("the number of replicas cannot be negative".to_owned()),
        _ => Err(format!("the number of replicas is an int32, which is at most {}", i32::MAX)),
    }
}

impl Scale {
    pub async fn run(self) -> anyhow::Result<()> {
        let (kind, name) = match self.target.as_slice() {
            [kind, name] => (kind.as_str(), name.as_str()),
            [both] => match both.split_once('/') {
                Some(parts) => parts,
                None => bail!("{both:?} is not KIND/NAME"),
            },
            _ => bail!("give KIND/NAME"),
        };
        let client = self.connection.open().await?;
        let resource = client.resource(kind).await?;
        let path = format!("{}/scale", resource.path(Some(&client.namespace), Some(name)));
        let patch = serde_json::to_vec(&json!({"spec": {"replicas": self.replicas}}))?;
        client.request(http::Method::PATCH, &path, JSON, Some(("application/merge-patch+json", patch))).await?;
        output::line(format!("{} scaled", resource.named(name)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_replicas_is_an_int32_that_is_not_negative() {
        assert_eq!((replicas("0"), replicas("2147483647")), (Ok(0), Ok(i32::MAX)));
        assert!(replicas("2147483648").unwrap_err().contains("at most 2147483647"));
        assert!(replicas("99999999999999999999").unwrap_err().contains("int32"));
        assert!(replicas("-1").unwrap_err().contains("negative"));
        for bad in ["", "two", "1.5", "+1"] {
            assert!(replicas(bad).unwrap_err().contains("not a number"), "{bad}");
        }
    }
}
