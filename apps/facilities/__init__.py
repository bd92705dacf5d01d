"""Application `facilities`: capacity and waiting times of care facilities, live, beside a cached REST API."""
