"""What several formats are made of: framed logs, checksums, protobuf's wire format. No importer lives here."""
