"""Clients that were written for the systems which the applications replace, each run in a tab as it was written.

`CLIENTS` are their own words, of the documents that the applications were made from. Only addresses are made relative,
TypeScript's types left out, and a token added where one is needed. What a client hands on to its page (`console.log`, a
function of the page's, a state of React's) is found in `told`, in order. Knows no server.
"""

from __future__ import annotations

import json
from typing import Any

from tests.browser.chromium import ANSWER_SECONDS, Page
from tests.harness.process import wait_until

# The page around a client: what it calls, and as much of React as its hooks need.
STAGE = """
const told = [];
console.log = console.error = (...words) => told.push(words.filter((word) => !(word instanceof Event)));
for (const name of ["updateMapMarker", "updateProgressBar", "updateStatusMessage", "updateDashboardWidget",
                    "updateJourneyMap", "handleCapacityUpdate", "onUpdate"])
  globalThis[name] = (...given) => told.push([name, ...given.map((one) => one instanceof Event ? one.data : one)]);
const state = [];
const useState = (first) => {
  const place = state.push(first) - 1;
  return [first, (next) => {
    state[place] = typeof next === "function" ? next(state[place]) : next;
    told.push(["state", place, state[place]]);
  }];
};
const useRef = (current) => ({ current });
const useEffect = (effect) => { globalThis.leave = effect(); };
"""

CLIENTS = {
    "facility": """
const eventSource = new EventSource('/api/stream/facilities/fac_001');

eventSource.addEventListener('capacity_update', (event) => {
  const data = JSON.parse(event.data);
  console.log('Capacity updated:', data.changed_fields.capacity_status);
});

eventSource.addEventListener('wait_time_update', (event) => {
  const data = JSON.parse(event.data);
  console.log('Wait time updated:', data.changed_fields.avg_wait_minutes);
});
""",
    "region": """
// Subscribe to facilities within 25km of user's location
const eventSource = new EventSource(
  '/api/stream/facilities/region?lat=6.5244&lon=3.3792&radius=25'
);

eventSource.addEventListener('capacity_update', (event) => {
  const data = JSON.parse(event.data);
  updateMapMarker(data.facility_id, data.changed_fields);
});
""",
    "facility that reconnects": """
function connectSSE(facilityId) {
  let eventSource;
  let reconnectAttempts = 0;

  function connect() {
    eventSource = new EventSource(`/api/stream/facilities/${facilityId}`);

    eventSource.onopen = () => {
      reconnectAttempts = 0;
      console.log('SSE connected');
    };

    eventSource.onerror = () => {
      eventSource.close();
      reconnectAttempts++;
      const delay = Math.min(1000 * Math.pow(2, reconnectAttempts), 30000);
      setTimeout(connect, delay);
    };

    eventSource.addEventListener('capacity_update', handleCapacityUpdate);
  }

  connect();
  return eventSource;
}
connectSSE('fac_001');
""",
    "prices": """
const API_BASE_URL = '/api/v1';
function usePriceStream(options) {
  const [isConnected, setIsConnected] = useState(false);
  const [lastUpdate, setLastUpdate] = useState(null);
  const [connectionError, setConnectionError] = useState(null);
  const [reconnectCount, setReconnectCount] = useState(0);
  const eventSourceRef = useRef(null);

  useEffect(() => {
    if (!options.enabled) return;

    const connect = () => {
      const params = options.itemIds?.length
        ? `?items=${options.itemIds.join(',')}`
        : '';
      const url = `${API_BASE_URL}/prices/stream${params}`;

      const eventSource = new EventSource(url);
      eventSourceRef.current = eventSource;

      eventSource.onopen = () => {
        setIsConnected(true);
        setConnectionError(null);
      };

      eventSource.addEventListener('price-update', (e) => {
        const update = JSON.parse(e.data);
        setLastUpdate(update);
        options.onUpdate?.(update);
      });

      eventSource.addEventListener('heartbeat', () => {
        // Connection still alive, no action needed
      });

      eventSource.onerror = () => {
        setIsConnected(false);
        eventSource.close();

        // Reconnect with exponential backoff (max 30s)
        const delay = Math.min(1000 * Math.pow(2, reconnectCount), 30000);
        setTimeout(() => {
          setReconnectCount(c => c + 1);
          connect();
        }, delay);
      };
    };

    connect();

    return () => {
      eventSourceRef.current?.close();
    };
  }, [options.enabled, options.itemIds?.join(',')]);

  return { isConnected, lastUpdate, connectionError, reconnectCount };
}
usePriceStream({ enabled: true, itemIds: [2, 4151], onUpdate });
""",
    # Of this one there is no text, only what it does: the token in the address, three handlers.
    "monitors": """
const eventSource = new EventSource(`/api/v1/stream/events?token=${token}`);
for (const type of ['monitor_check', 'incident_created', 'incident_resolved'])
  eventSource.addEventListener(type, (event) => console.log(type, JSON.parse(event.data)));
""",
    "job": """
// 1. Client creates job
const response = await fetch('/api/v1/jobs', {
  method: 'POST',
  headers: { 'Content-Type': 'application/json' },
  body: JSON.stringify({
    topics: ['technology'],
    sources: ['techcrunch', 'ars-technica']
  })
});

const { jobId, sseEndpoint } = await response.json();
""",
    "job's progress": """
// 2. Client connects to SSE endpoint
const eventSource = new EventSource(sseEndpoint);

eventSource.onmessage = (event) => {
  const statusUpdate = JSON.parse(event.data);
  console.log('Job update:', statusUpdate);

  // Update UI with progress
  updateProgressBar(statusUpdate.progress);
  updateStatusMessage(statusUpdate.message);
};

eventSource.onerror = (error) => {
  console.error('SSE connection error:', error);
  // Implement reconnection logic
};
""",
    "company": """
// Establish SSE connection
const companyId = 'a';
let lastEventId = localStorage.getItem('lastEventId');

const eventSource = new EventSource(
  `/stream/updates?companyId=${companyId}` +
  (lastEventId ? `&lastEventId=${lastEventId}` : '')
);

// Listen for metric updates
eventSource.addEventListener('metric_updated', (event) => {
  const data = JSON.parse(event.data);
  console.log('Metric updated:', data);

  // Store event ID for reconnection
  localStorage.setItem('lastEventId', event.lastEventId);

  // Update UI
  updateDashboardWidget(data);
});

// Listen for journey updates
eventSource.addEventListener('journey_flag_updated', (event) => {
  const data = JSON.parse(event.data);
  console.log('Journey flag updated:', data);

  // Update journey visualization
  updateJourneyMap(data);
});

// Handle connection errors
eventSource.onerror = (error) => {
  console.error('SSE connection error:', error);

  // EventSource will automatically reconnect
  // with lastEventId if we've set it
};

// Close connection when leaving page
window.addEventListener('beforeunload', () => {
  eventSource.close();
});
""",
    "company's widgets": """
function useSSEStream(companyId) {
  const [lastEvent, setLastEvent] = useState(null);
  const [connected, setConnected] = useState(false);

  useEffect(() => {
    const lastEventId = localStorage.getItem('lastEventId');
    const url = `/stream/updates?companyId=${companyId}` +
      (lastEventId ? `&lastEventId=${lastEventId}` : '') + `&authorization=${token}`;

    const eventSource = new EventSource(url);

    eventSource.onopen = () => {
      console.log('SSE connected');
      setConnected(true);
    };

    // Listen for all event types
    ['metric_updated', 'sroi_updated', 'vis_updated', 'journey_flag_updated'].forEach(
      (eventType) => {
        eventSource.addEventListener(eventType, (event) => {
          const data = JSON.parse(event.data);
          localStorage.setItem('lastEventId', event.lastEventId);
          setLastEvent({ type: eventType, data });
        });
      }
    );

    eventSource.onerror = () => {
      console.error('SSE error');
      setConnected(false);
    };

    return () => {
      eventSource.close();
    };
  }, [companyId]);

  return { lastEvent, connected };
}
useSSEStream('a');
""",
}


class Client:
    """One of `CLIENTS` in a tab of its own, which has these variables."""

    def __init__(self, page: Page, name: str, **variables: str) -> None:
        self.page = page
        page.run(STAGE + "".join(f"const {one} = {json.dumps(value)};\n" for one, value in variables.items()))
        self.run(name)

    def run(self, name: str) -> None:
        """One of `CLIENTS`, in the same tab. It may wait for promises, as a module may."""
        answer = self.page.call("Runtime.evaluate", expression=CLIENTS[name], replMode=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer

    @property
    def told(self) -> list[list[Any]]:
        found: list[list[Any]] = self.page.run("told")
        return found

    def of(self, *first: object) -> list[Any]:
        """What came behind these words, each time."""
        return [words[len(first) :] for words in self.told if words[: len(first)] == list(first)]

    def wait_for(self, *first: object, count: int = 1) -> list[Any]:
        """Wait until these words were said so often; what came behind them."""
        try:
            wait_until(lambda: len(self.of(*first)) >= count, ANSWER_SECONDS, f"{first}, {count} times,")
        except AssertionError as error:
            raise AssertionError(f"{error}; told was {self.told}") from None
        return self.of(*first)

    def wait_state(self, ready_state: int) -> None:
        """Wait until its `eventSource` is so."""
        self.page.wait(f"eventSource.readyState === {ready_state}")
