// Sends requests by Java's HttpClient and prints how often each status came: run by `test_clients.py`.
// Arguments: the address of a service, of one without a model, how many requests of each kind, and `length` or `chunks`.
import java.io.ByteArrayInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;
import java.util.Map;
import java.util.TreeMap;

public class Rank {
    static final byte[] BODY = "{\"user_id\": \"4\", \"item_ids\": [\"1\", \"2\", \"3\"]}".getBytes();
    static final int[] SIZES = {700_000, 1_500_000, 700_000, 700_000, 5_000_000, 700_000, 1_500_000, 20_000_000};

    public static void main(String[] arguments) {
        String service = arguments[0], withoutModel = arguments[1];
        int count = Integer.parseInt(arguments[2]);
        boolean chunks = arguments[3].equals("chunks");
        HttpClient client = HttpClient.newHttpClient(); // offers h2c
        Map<String, Integer> outcomes = new TreeMap<>();
        for (int n = 0; n < count; n++) {
            for (int kind = 0; kind < 3; kind++) {
                byte[] body = kind == 1 ? new byte[SIZES[n % SIZES.length]] : BODY;
                BodyPublisher publisher = chunks
                        ? BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(body))
                        : BodyPublishers.ofByteArray(body);
                HttpRequest request = HttpRequest.newBuilder(URI.create((kind == 2 ? withoutModel : service) + "/rank"))
                        .header("Content-Type", "application/json").timeout(Duration.ofSeconds(60)).POST(publisher).build();
                String outcome;
                try {
                    outcome = String.valueOf(client.send(request, BodyHandlers.ofString()).statusCode());
                } catch (Exception error) {
                    outcome = error.toString().replace('"', '\'');
                }
                outcomes.merge(outcome, 1, Integer::sum);
            }
        }
        StringBuilder json = new StringBuilder("{");
        outcomes.forEach((key, value) -> json.append(json.length() > 1 ? ", " : "").append('"').append(key).append("\": ").append(value));
        System.out.println(json.append("}"));
    }
}
