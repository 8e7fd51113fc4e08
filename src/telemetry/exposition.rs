//! The two formats in which metrics are read. The library writes `OpenMetrics`; whoever does not ask for that (`curl`,
//! `promtool check metrics`, old agents) gets the plain text format of Prometheus, 0.0.4.

use std::collections::BTreeMap;

/// A format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposition {
    /// `OpenMetrics` 1.0.
    OpenMetrics,
    /// Prometheus' own text format.
    Text,
}

impl Exposition {
    /// The one that an `Accept` header asks for.
    #[must_use]
    pub fn wanted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    /// Its `Content-Type`.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Series of a metric in the order of the alphabet: the library's order is another one each time. Buckets of a
/// histogram stay as they are, they are in order.
pub(super) fn in_order(page: &str) -> String {
    let mut text = String::with_capacity(page.len());
    let mut series: Vec<&str> = Vec::new();
    let mut histogram = false;
    for line in page.lines().chain(["#"]) {
        if !line.starts_with('#') {
            series.push(line);
            continue;
        }
        if !histogram {
            series.sort_unstable();
        }
        for one in series.drain(..) {
            text.push_str(one);
            text.push('\n');
        }
        if line.starts_with("# TYPE ") {
            histogram = line.ends_with(" histogram");
        }
        if line != "#" {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// In `OpenMetrics` the family of `x_total` is called `x`, in the text format it is called `x_total`; there is no type
/// `info`, no unit and no end mark.
pub(super) fn as_plain_text(open_metrics: &str) -> String {
    let types: BTreeMap<&str, &str> = open_metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .collect();
    let full_name = |name: &str| match types.get(name) {
        Some(&"counter") => format!("{name}_total"),
        Some(&"info") => format!("{name}_info"),
        _ => name.to_owned(),
    };
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines() {
        let comment = line.strip_prefix("# ").and_then(|rest| {
            let (what, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            Some((what, name, rest)).filter(|_| ["HELP", "TYPE", "UNIT", "EOF"].contains(&what))
        });
        let line = match comment {
            Some(("UNIT" | "EOF", ..)) => continue,
            Some(("TYPE", name, "info")) => format!("# TYPE {} gauge", full_name(name)),
            Some((what, name, rest)) => format!("# {what} {} {rest}", full_name(name)),
            None => line.to_owned(),
        };
        text.push_str(&line);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_infos_get_their_full_names_and_the_rest_stays() {
        let open_metrics = "# HELP a Things.\n# TYPE a counter\na_total{k=\"v\"} 3\n\
            # HELP b Which.\n# TYPE b info\nb_info{version=\"1\"} 1\n\
            # HELP c_seconds Times.\n# TYPE c_seconds histogram\n# UNIT c_seconds seconds\nc_seconds_sum 1.5\n# EOF\n";
        let text = "# HELP a_total Things.\n# TYPE a_total counter\na_total{k=\"v\"} 3\n\
            # HELP b_info Which.\n# TYPE b_info gauge\nb_info{version=\"1\"} 1\n\
            # HELP c_seconds Times.\n# TYPE c_seconds histogram\nc_seconds_sum 1.5\n";
        assert_eq!(as_plain_text(open_metrics), text);
    }

    #[test]
    fn series_are_in_order_and_buckets_stay() {
        let page = "# TYPE a gauge\na{k=\"2\"} 1\na{k=\"1\"} 2\n# TYPE b histogram\nb_sum 1\nb_bucket{le=\"0.5\"} 1\n\
            b_bucket{le=\"+Inf\"} 1\n# EOF\n";
        let ordered = "# TYPE a gauge\na{k=\"1\"} 2\na{k=\"2\"} 1\n# TYPE b histogram\nb_sum 1\nb_bucket{le=\"0.5\"} 1\n\
            b_bucket{le=\"+Inf\"} 1\n# EOF\n";
        assert_eq!(in_order(page), ordered);
    }

    #[test]
    fn only_who_asks_for_it_gets_open_metrics() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!(Exposition::wanted(prometheus), Exposition::OpenMetrics);
        assert_eq!(Exposition::wanted("*/*"), Exposition::Text);
        assert_eq!(Exposition::wanted(""), Exposition::Text);
    }
}
