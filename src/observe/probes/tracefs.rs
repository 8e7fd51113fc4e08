//! Where the fields of a tracepoint lie, as the running kernel describes them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::ProbeError;

/// Where tracefs is mounted, where aya looks for it too.
const PLACES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Finds a mounted tracefs.
pub fn find() -> Result<PathBuf, ProbeError> {
    for place in PLACES.map(PathBuf::from) {
        match fs::metadata(place.join("events")) {
            Ok(_) => return Ok(place),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(ProbeError::TracefsForbidden { path: place });
            }
            Err(_) => {}
        }
    }
    Err(ProbeError::NoTracefs)
}

/// The description of one tracepoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    tracepoint: String,
    fields: Vec<(String, u32)>,
}

impl Format {
    /// Reads `events/CATEGORY/NAME/format`.
    pub fn read(tracefs: &Path, category: &str, name: &str) -> Result<Self, ProbeError> {
        let path = tracefs.join("events").join(category).join(name).join("format");
        let text = fs::read_to_string(&path).map_err(|source| ProbeError::Format { path, source })?;
        Ok(Self {
            tracepoint: format!("{category}/{name}"),
            fields: parse(&text),
        })
    }

    /// Offset of a field from the start of the tracepoint's record, in bytes.
    pub fn offset(&self, field: &'static str) -> Result<u32, ProbeError> {
        let found = self.fields.iter().find(|(name, _)| name == field);
        found.map(|(_, offset)| *offset).ok_or_else(|| ProbeError::Field {
            tracepoint: self.tracepoint.clone(),
            field,
        })
    }
}

/// Lines look like `field:char rwbs[8]; offset:32; size:8; signed:0;`, with tabs between.
fn parse(text: &str) -> Vec<(String, u32)> {
    text.lines()
        .filter_map(|line| {
            let mut parts = line.trim().split(';').map(str::trim);
            let declaration = parts.next()?.strip_prefix("field:")?;
            let offset = parts.next()?.strip_prefix("offset:")?.parse().ok()?;
            let name = declaration.rsplit(' ').next()?.split('[').next()?;
            Some((name.to_owned(), offset))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `block_rq_error` of Linux 6.18.
    const SAMPLE: &str = "name: block_rq_error\nID: 1234\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n\
        \tfield:dev_t dev;\toffset:8;\tsize:4;\tsigned:0;\n\
        \tfield:sector_t sector;\toffset:16;\tsize:8;\tsigned:0;\n\
        \tfield:unsigned int nr_sector;\toffset:24;\tsize:4;\tsigned:0;\n\
        \tfield:int error;\toffset:28;\tsize:4;\tsigned:1;\n\
        \tfield:unsigned short ioprio;\toffset:32;\tsize:2;\tsigned:0;\n\
        \tfield:char rwbs[10];\toffset:34;\tsize:10;\tsigned:0;\n\
        \tfield:__data_loc char[] cmd;\toffset:44;\tsize:4;\tsigned:0;\n\nprint fmt: \"%d\", REC->dev\n";

    #[test]
    fn fields_are_found_wherever_this_kernel_puts_them() {
        let format = Format {
            tracepoint: "block/block_rq_error".to_owned(),
            fields: parse(SAMPLE),
        };
        assert_eq!(format.offset("rwbs").unwrap(), 34);
        assert_eq!(format.offset("error").unwrap(), 28);
        assert_eq!(format.offset("cmd").unwrap(), 44);
        assert!(matches!(format.offset("nowhere"), Err(ProbeError::Field { .. })));
    }

    #[test]
    fn nonsense_has_no_fields() {
        assert_eq!(parse("field:int x;\noffset:1;\nfield:;offset:z;\n\u{1F980}"), []);
    }
}
