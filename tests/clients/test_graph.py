"""A plain HTTP client with msal's token searches the audit log through the simulated Graph.

No package brings Graph's schemas: the member names are those of its reference ("auditLogQuery" and
"auditLogRecord resource type", v1.0; "Microsoft Graph error responses").
"""

import datetime
import time

import requests

from services import TestCase
from test_microsoft_login import application, secret

QUERY_MEMBERS = {
    "id",
    "displayName",
    "filterStartDateTime",
    "filterEndDateTime",
    "recordTypeFilters",
    "keywordFilter",
    "serviceFilter",
    "operationFilters",
    "userPrincipalNameFilters",
    "ipAddressFilters",
    "objectIdFilters",
    "administrativeUnitIdFilters",
    "status",
    # Of the resource page of 2026-09 (connectors facts, section 2.1).
    "serviceFilters",
    "recordCountLimit",
    "approximateReturnedRecordCount",
    "isRecordCountLimitExceeded",
}
RECORD_MEMBERS = {
    "id",
    "createdDateTime",
    "auditLogRecordType",
    "operation",
    "organizationId",
    "userType",
    "userId",
    "service",
    "objectId",
    "userPrincipalName",
    "clientIp",
    "administrativeUnits",
    "auditData",
}
DOMAIN_MEMBERS = {
    "id",
    "authenticationType",
    "availabilityStatus",
    "isAdminManaged",
    "isDefault",
    "isInitial",
    "isRoot",
    "isVerified",
    "supportedServices",
    "passwordNotificationWindowInDays",
    "passwordValidityPeriodInDays",
    "state",
    "manufacturer",
    "model",
}
# How long a search may take here; the simulator's ends after two seconds.
SEARCH_SECONDS_MAX = 30


def members(value):
    """Without annotations."""
    return {name for name in value if "@odata." not in name}


class Graph(TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        client = application(cls.services, secret(cls.services))
        reply = client.acquire_token_for_client(["https://graph.microsoft.com/.default"])
        cls.session = requests.Session()
        cls.session.headers["Authorization"] = f"Bearer {reply['access_token']}"
        cls.root = f"{cls.services.microsoft['url']}/v1.0"
        cls.queries = f"{cls.root}/security/auditLog/queries"

    def get(self, url):
        reply = self.session.get(url, timeout=10)
        self.assertEqual(reply.status_code, 200, reply.text)
        return reply.json()

    def searched(self, start, end):
        """A finished search of a span."""
        body = {
            "@odata.type": "#microsoft.graph.security.auditLogQuery",
            "displayName": "real client",
            "filterStartDateTime": start,
            "filterEndDateTime": end,
        }
        reply = self.session.post(self.queries, json=body, timeout=10)
        self.assertEqual(reply.status_code, 201, reply.text)
        query = reply.json()
        self.assertLessEqual(members(query), QUERY_MEMBERS)
        by = time.monotonic() + SEARCH_SECONDS_MAX
        while query["status"] in ("notStarted", "running"):
            self.assertLess(time.monotonic(), by, "the search does not end")
            time.sleep(0.2)
            query = self.get(f"{self.queries}/{query['id']}")
            self.assertLessEqual(members(query), QUERY_MEMBERS)
        self.assertEqual(query["status"], "succeeded")
        return query

    def test_a_search_finds_each_record_of_the_span(self):
        rows = [
            row
            for rows in self.services.records_of("office365/").values()
            for row in rows
        ]
        at = sorted(row[1] for row in rows)
        form = lambda ms: datetime.datetime.fromtimestamp(ms // 1000, datetime.timezone.utc).strftime(
            "%Y-%m-%dT%H:%M:%SZ"
        )
        query = self.searched(form(at[0]), form(at[-1] + 2000))
        records, pages = [], 0
        url = f"{self.queries}/{query['id']}/records?$top=500"
        while url:
            page = self.get(url)
            self.assertLessEqual(members(page), {"value"})
            pages += 1
            records.extend(page["value"])
            url = page.get("@odata.nextLink")
        self.assertGreater(pages, 2)
        for record in records:
            self.assertLessEqual(members(record), RECORD_MEMBERS)
        got = {record["auditData"]["Id"]: record["auditData"] for record in records}
        want = {row[0]: row[2] for row in rows}
        self.assertEqual(sorted(got), sorted(want))
        for identity, data in got.items():
            self.assertEqual(members(data), set(want[identity]))

    def test_the_domains_of_the_tenant(self):
        page = self.get(f"{self.root}/domains")
        for domain in page["value"]:
            self.assertLessEqual(members(domain), DOMAIN_MEMBERS)
        verified = [domain["id"] for domain in page["value"] if domain["isVerified"]]
        self.assertIn(self.services.domain, verified)

    def test_errors_are_worded_as_graphs(self):
        reply = requests.get(f"{self.root}/domains", timeout=10)
        self.assertEqual(reply.status_code, 401)
        error = reply.json()["error"]
        self.assertEqual(error["code"], "InvalidAuthenticationToken")
        self.assertEqual(set(error), {"code", "message", "innerError"})
        reply = self.session.get(f"{self.queries}/{'0' * 8}-0000-4000-8000-{'0' * 12}", timeout=10)
        self.assertIn(reply.status_code, (400, 404))
        self.assertEqual(set(reply.json()["error"]), {"code", "message", "innerError"})
