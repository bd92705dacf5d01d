"""Ringcast's package: what is installed, and the `ringcast` command."""

from setuptools import find_packages, setup

setup(
    name="ringcast",
    version="0.1.0",
    description="A high-concurrency server for Server-Sent Events",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["server", "server.*", "handlers", "handlers.*", "config", "config.*", "ringcast"]),
    package_data={
        "handlers.console": ["*.html", "*.js", "*.css", "*.svg"],
        "config": ["*.yaml", "*.example", "nginx/*.conf", "nginx/ringcast/*.conf"],
        "server.relay": ["lua/*.lua"],
    },
    install_requires=[
        "ada-url",
        "click",
        "cryptography",
        "hiredis",
        "httptools",
        "prometheus-client",
        "psutil",
        "pydantic-settings",
        "pyjwt[crypto]>=2.13",
        "pyyaml",
        "redis",
        "structlog",
        "tornado>=6.5.7",
        "ujson",
        "uvloop",
    ],
    entry_points={"console_scripts": ["ringcast=server.__main__:main"]},
)
