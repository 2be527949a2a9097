"""google-api-python-client reads the simulated Alert Center by its bundled discovery document."""

import google_auth_httplib2
import httplib2
from googleapiclient.discovery import build
from googleapiclient.errors import HttpError

from schema import Document
from services import TestCase
from test_google_reports import delegated, installed

SCOPE = "https://www.googleapis.com/auth/apps.alerts"
CENTER = Document("alertcenter.v1beta1")


def center(services, credentials):
    http = google_auth_httplib2.AuthorizedHttp(
        credentials, http=httplib2.Http(ca_certs=services.ca_file)
    )
    return build(
        "alertcenter",
        "v1beta1",
        http=http,
        static_discovery=True,
        client_options={"api_endpoint": services.google["url"]},
    )


class Alerts(TestCase):
    def walk(self, **parameters):
        """All alerts by list_next, and how many pages there were."""
        alerts = center(self.services, delegated(self.services, scope=SCOPE)).alerts()
        request = alerts.list(**parameters)
        found, pages = [], 0
        while request is not None:
            page = request.execute()
            self.assertEqual(CENTER.problems("ListAlertsResponse", page), [])
            pages += 1
            found.extend(page.get("alerts", []))
            request = alerts.list_next(request, page)
        return found, pages

    def test_all_alerts_come_over_several_pages_in_the_order_asked_for(self):
        for order, backwards in (("createTime asc", False), ("createTime desc", True)):
            with self.subTest(order):
                found, pages = self.walk(orderBy=order, pageSize=3)
                ids = [alert["alertId"] for alert in found]
                self.assertEqual(sorted(ids), sorted(self.services.google["alerts"]))
                self.assertEqual(pages, 3)
                times = [alert["createTime"] for alert in found]
                self.assertEqual(times, sorted(times, reverse=backwards))

    def test_an_alert_has_what_the_reference_promises(self):
        found, _ = self.walk()
        self.assertTrue(found)
        for alert in found:
            for name in ("customerId", "alertId", "createTime", "type", "source", "data", "etag"):
                self.assertTrue(alert[name], name)
            self.assertFalse(alert["customerId"].startswith("C"), "without the leading C")
            self.assertIn("@type", alert["data"])
            self.assertEqual(alert["metadata"]["alertId"], alert["alertId"])

    def test_the_filter_of_the_documentation(self):
        found, _ = self.walk(filter='createTime >= "2030-01-01T00:00:00Z"')
        self.assertEqual(found, [])
        found, _ = self.walk(filter='createTime >= "2020-01-01T00:00:00Z"')
        self.assertEqual(len(found), len(self.services.google["alerts"]))

    def refused(self, credentials, **parameters):
        request = center(self.services, credentials).alerts().list(**parameters)
        with self.assertRaises(HttpError) as caught:
            request.execute()
        return caught.exception.status_code

    def test_what_is_refused(self):
        good = delegated(self.services, scope=SCOPE)
        self.assertEqual(self.refused(good, filter="createTime"), 400)
        self.assertEqual(self.refused(good, orderBy="size asc"), 400)
        self.assertEqual(self.refused(delegated(self.services)), 403, "without the scope")
        self.assertEqual(self.refused(installed(self.services)), 403, "no service account")
