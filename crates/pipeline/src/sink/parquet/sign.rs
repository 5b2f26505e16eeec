//! Signatures of requests to stores that speak S3's protocol (AWS Signature Version 4).
//!
//! Pure: a request and a moment in, a header out.

use keyring::MacKey;
use keyring::mac::sha256;

/// The service that is signed for.
const SERVICE: &str = "s3";

/// A key of a store.
pub(super) struct Key {
    pub(super) id: String,
    pub(super) secret: String,
    pub(super) region: String,
}

/// A moment as signatures write it: `20261124T081500Z`.
pub(super) fn moment(at_ms: u64) -> String {
    let time = i64::try_from(at_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.unwrap_or(jiff::Timestamp::UNIX_EPOCH).strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// A path with all its bytes as they are signed.
pub(super) fn encoded(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/');
    path.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

impl Key {
    /// The value of `Authorization` for a request without a query: an encoded path, headers in the order of their
    /// names, the hash of the body in hexadecimal, and the moment that `x-amz-date` says.
    pub(super) fn authorization(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body_hash: &str,
        at: &str,
    ) -> String {
        let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let request = format!("{method}\n{path}\n\n{lines}\n{names}\n{body_hash}");
        let day = at.get(..8).unwrap_or(at);
        let scope = format!("{day}/{}/{SERVICE}/aws4_request", self.region);
        let text = format!("AWS4-HMAC-SHA256\n{at}\n{scope}\n{}", hex::encode(sha256(request.as_bytes())));
        let mut key = MacKey::of_bytes(format!("AWS4{}", self.secret).as_bytes());
        for part in [day, &self.region, SERVICE, "aws4_request"] {
            key = MacKey::of_bytes(key.sign(part.as_bytes()).as_bytes());
        }
        let signature = hex::encode(key.sign(text.as_bytes()).as_bytes());
        format!("AWS4-HMAC-SHA256 Credential={}/{scope},SignedHeaders={names},Signature={signature}", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example "GET Object" of Amazon's own description of the algorithm.
    #[test]
    fn the_published_example_has_the_published_signature() {
        let key = Key {
            id: "AKIAIOSFODNN7EXAMPLE".into(),
            secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
            region: "us-east-1".into(),
        };
        let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hex::encode(sha256(b"")), nothing);
        let at = moment(1_369_353_600_000);
        assert_eq!(at, "20130524T000000Z");
        let headers = [
            ("host", "examplebucket.s3.amazonaws.com"),
            ("range", "bytes=0-9"),
            ("x-amz-content-sha256", nothing),
            ("x-amz-date", &at),
        ];
        let header = key.authorization("GET", "/test.txt", &headers, nothing, &at);
        assert_eq!(
            header,
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
             SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,\
             Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
    }

    #[test]
    fn every_byte_but_the_plain_ones_is_written_in_hexadecimal() {
        assert_eq!(encoded("tenant=ä/a-b_c.~ "), "tenant%3D%C3%A4/a-b_c.~%20");
    }
}
